//! Writes the seeds into the corpora: the transcripts, and files from elsewhere among the tests, so that none exists
//! twice.
//!
//! `seeds CORPUS`, in the root of the repository. A program without a package, so that it needs no other build.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// The sizes of the pieces in which bytes arrive, less one: any will do.
const SIZES: [u8; 3] = [0, 6, 40];

/// Files that are used as they are.
const FILES: [(&str, &str); 10] = [
    ("sasl", "tests/fuzz/seeds/sasl"),
    ("proxy_header", "tests/fuzz/seeds/proxy_header"),
    ("redirect", "tests/fuzz/seeds/redirect"),
    ("token_response", "tests/fuzz/seeds/token_response"),
    ("control_request", "tests/fuzz/seeds/control_request"),
    ("config", "config"),
    ("config", "config/examples"),
    ("vault_record", "tests/vault/format-1"),
    ("vault_record", "tests/vault/format-2"),
    ("session", "tests/fuzz/seeds/session"),
];

/// A client that logs in, to go before what a server sends.
const LOGINS: [(&str, &[u8]); 3] = [
    ("imap", b"a LOGIN ann@example.test s3cret\r\nb NOOP\r\n"),
    ("pop3", b"USER ann@example.test\r\nPASS s3cret\r\nSTAT\r\n"),
    ("smtp", b"EHLO pc.test\r\nAUTH PLAIN AGFubkBleGFtcGxlLnRlc3QAczNjcmV0\r\nMAIL FROM:<ann@example.test>\r\n"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = PathBuf::from(std::env::args().nth(1).ok_or("seeds CORPUS")?);
    for (target, folder) in FILES {
        for file in files(Path::new(folder))? {
            write(&corpus, target, &file, &fs::read(&file)?)?;
        }
    }
    for (number, (protocol, login)) in LOGINS.into_iter().enumerate() {
        for file in files(&Path::new("tests/transcripts").join(protocol))? {
            let transcript = Transcript::read(&fs::read_to_string(&file)?);
            let target = if transcript.is_client { "command" } else { "reply" };
            let alone = [&[transcript.choice], &SIZES[..], &transcript.bytes(false)].concat();
            write(&corpus, &format!("{protocol}_{target}"), &file, &alone)?;
            let head = [&[number as u8, transcript.choice], &SIZES[..]].concat();
            let streams = transcript.bytes(true);
            let session = match transcript.is_client {
                true => [&head, &streams].map(|part| part.as_slice()).concat(),
                false => [&head, login, b"\xff\xff", &streams].concat(),
            };
            write(&corpus, "session", &file, &session)?;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let paths: Result<Vec<PathBuf>, _> = fs::read_dir(folder)?.map(|entry| entry.map(|it| it.path())).collect();
    Ok(paths?.into_iter().filter(|path| path.is_file()).collect())
}

fn write(corpus: &Path, target: &str, file: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    let name = format!(
        "{}-{}",
        file.parent().and_then(Path::file_name).unwrap_or_default().display(),
        file.file_name().unwrap_or_default().display()
    );
    Ok(fs::write(folder.join(name), bytes)?)
}

/// What the other side sends in a transcript.
struct Transcript {
    is_client: bool,
    /// In the form that `client::offer` and `server::approach` read.
    choice: u8,
    /// Before TLS, and with it.
    streams: Vec<Vec<u8>>,
}

impl Transcript {
    fn read(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let head = lines.next().unwrap_or_default();
        let is_client = head.starts_with("downstream");
        let choice = if head.contains("=offered") || head.contains("=starttls") { 1 } else { 0 };
        let sign = if is_client { "C: " } else { "S: " };
        let mut streams = vec![Vec::new()];
        for line in lines {
            match line.strip_prefix(sign) {
                Some(said) => streams.last_mut().expect("there is one").extend(unescape(said)),
                None if line == "= tls started" => streams.push(Vec::new()),
                None => {}
            }
        }
        Self { is_client, choice, streams }
    }

    fn bytes(&self, separated: bool) -> Vec<u8> {
        self.streams.join(if separated { &b"\xff"[..] } else { b"" })
    }
}

/// The line with its escapes (`tests/transcripts.rs`) and its end.
fn unescape(line: &str) -> Vec<u8> {
    let (line, end) =
        line.strip_suffix('\\').filter(|line| !line.ends_with('\\')).map_or((line, "\r\n"), |it| (it, ""));
    let (mut bytes, mut chars) = (Vec::new(), line.chars());
    while let Some(c) = chars.next() {
        bytes.push(match if c == '\\' { chars.next().unwrap_or(c) } else { '\0' } {
            'r' => b'\r',
            'n' => b'\n',
            'x' => u8::from_str_radix(&chars.by_ref().take(2).collect::<String>(), 16).unwrap_or(b'x'),
            '\0' => c as u8,
            other => other as u8,
        });
    }
    bytes.extend(end.bytes());
    bytes
}
