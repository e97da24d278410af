"""Programs that fill a terminal. tmux runs them, types for a person, and reads the screen."""

import subprocess

from case import version
from process import Failure, wait_until
from program import Program, Stay


class Terminal:
    """A program in a tmux of its own."""

    def __init__(self, case, *command):
        self.socket = case.folder / "tmux"
        settings = case.file("tmux.conf", "\n".join([
            "set-option -g remain-on-exit on", "set-option -g default-terminal xterm-256color", "set-option -g default-shell /bin/sh"]))
        self.process = case.start("tmux", "tmux", "-S", self.socket, "-f", settings, "-D")
        wait_until(self.socket.exists, "tmux")
        self.tmux("new-session", "-d", "-x", "180", "-y", "50", *map(str, command))

    def tmux(self, *arguments):
        """A command of tmux. Returns what it prints."""
        done = subprocess.run(["tmux", "-S", self.socket, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"tmux {arguments[0]}: {done.stderr}")
        return done.stdout

    def screen(self):
        """What a person sees."""
        return self.tmux("capture-pane", "-p")

    def type(self, *keys):
        """Presses keys; a text of more than one letter is typed, and names such as Enter are pressed."""
        self.tmux("send-keys", *keys)

    def expect(self, *texts, seconds=30):
        """Waits for one of these texts on the screen, and returns it."""
        try:
            return wait_until(lambda: next((text for text in texts if text in self.screen()), None), str(texts), seconds)
        except Failure as failure:
            raise Failure(f"{failure}\n{self.screen()}") from None

    def sees(self, mark):
        """Whether a message with this mark is listed."""
        return mark.decode() in self.screen()

    def ended(self):
        """Whether the program has ended."""
        return self.process.child.poll() is not None

    def stop(self):
        """Ends the program."""
        self.process.stop()


# NeoMutt and mutt

def mutt_stay(program):
    def stay(case):
        rc = case.file(".muttrc", case.settings("mutt") + "set imap_idle=yes\nset mail_check=5\nset timeout=5\nset sort=reverse-date\n")
        terminal = Terminal(case, program, "-F", rc)
        terminal.expect("INBOX", "q:Quit")
        return terminal

    return stay


# Alpine

def alpine(case, *options):
    """Starts it with its block, types the password, and gets to the first screen."""
    more = "last-version-used=6.26\nmail-check-interval=15\nuser-input-timeout=0\nsort-key=Arrival/Reverse\ninit-cmd-list=\n"
    case.file(".pinerc", case.settings("alpine") + more)
    terminal = Terminal(case, "alpine", *options)
    return terminal


def alpine_log_in(terminal, case):
    terminal.expect("PASSWORD", "assword:")
    terminal.type("-l", case.account.password)
    terminal.type("Enter")
    if terminal.expect("Preserve password", "INBOX"):
        terminal.type("n")


def alpine_stay(case):
    terminal = alpine(case, "-i")
    alpine_log_in(terminal, case)
    terminal.expect("INBOX")
    return terminal


# aerc

def aerc_stay(case):
    case.file(".config/aerc/accounts.conf", case.settings("aerc"))
    terminal = Terminal(case, "aerc")
    terminal.expect("INBOX")
    return terminal


MUTT, NEOMUTT = Stay("imap", mutt_stay("mutt")), Stay("imap", mutt_stay("neomutt"), "a person")

PROGRAMS = [
    Program("Alpine", lambda: version("alpine"), [], Stay("imap", alpine_stay, "a person")),
    Program("aerc", lambda: version("aerc"), [], Stay("imap", aerc_stay, "itself, at times")),
]
