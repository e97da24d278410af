"""Test messages that are easily damaged: a relay of bytes has to leave everything in them alone."""

import secrets
from dataclasses import dataclass

# Lines that mean something to one of the protocols, to a mailbox format or to a careless parser.
HARD_LINES = [
    b".", b"..", b".hidden", b"", b"From here to there", b">From there", b"* OK [CAPABILITY IMAP4rev1]", b"a1 LOGOUT",
    b"+ ", b"+OK", b"-ERR", b"250 OK", b"QUIT", b"{10}", b"{10+}", b")", b"trailing blanks  ", b"\ttab", b"= =3D =",
    "Grüße, 你好".encode(), b"x" * 990, b"DATA", b"BDAT 5 LAST", b"STARTTLS",
]


@dataclass(frozen=True)
class Message:
    """A message, with CRLF, and the unique text by which it is found again."""

    mark: bytes
    body: bytes
    content: bytes

    @property
    def lf(self):
        """With the line ends of a local file."""
        return self.content.replace(b"\r\n", b"\n")


def new_message(sender, recipient, kilobytes=64):
    """A message of about this size that begins and ends with lines that are easily damaged."""
    mark = secrets.token_hex(8)
    filler = [b"%06d " % number + b"0123456789abcdef" * 3 for number in range(kilobytes * 1024 // 57)]
    body = crlf([mark.encode(), *HARD_LINES, *filler, *HARD_LINES, b"the end"])
    header = [
        f"From: {sender}", f"To: {recipient}", f"Subject: {mark}", "Date: Sat, 21 Nov 2026 10:00:00 +0000",
        f"Message-ID: <{mark}@example.test>", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit", "",
    ]
    return Message(mark.encode(), body, crlf([line.encode() for line in header]) + body)


def crlf(lines):
    """Lines as they are sent."""
    return b"".join(line + b"\r\n" for line in lines)
