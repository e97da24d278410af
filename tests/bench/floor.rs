//! The least that a relay can cost: a program that only receives TLS records, decrypts or encrypts each once, and sends it on.
//!
//! It has no handshake, no event loop and no second direction. So it shows one AEAD pass, and two copies between kernel and program.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;

use crate::process::Process;

/// The plaintext of a full TLS record, and what encryption adds to it.
const RECORD: usize = 16_384;
const TAG: usize = 16;

/// How many records a measurement relays: 2 GB.
const RECORDS: usize = 122_070;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Direction {
    /// From the provider: decrypts.
    Down,
    /// To the provider: encrypts.
    Up,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Up => "up",
        })
    }
}

fn refused(_: Unspecified) -> io::Error {
    io::Error::other("the cipher refuses a record")
}

/// A key that protects nothing. So each record may have the same nonce, too.
struct Key(LessSafeKey);

impl Key {
    fn new() -> io::Result<Self> {
        UnboundKey::new(&AES_128_GCM, &[7; 16]).map(|key| Self(LessSafeKey::new(key))).map_err(refused)
    }

    fn seal(&self, record: &mut [u8; RECORD + TAG]) -> io::Result<()> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let (text, tag) = record.split_at_mut(RECORD);
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), text).map_err(refused)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    fn open(&self, record: &mut [u8; RECORD + TAG]) -> io::Result<()> {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        self.0.open_in_place(nonce, Aad::empty(), record).map(drop).map_err(refused)
    }
}

/// The program itself: relays from one connection to another. Its port is `port`.
pub fn relay(port: u16, direction: Direction) -> io::Result<()> {
    let (listener, key) = (TcpListener::bind(("127.0.0.1", port))?, Key::new()?);
    let (mut probe, _) = listener.accept()?;
    probe.read_to_end(&mut Vec::new())?; // whoever started this program looked whether it listens
    let ((mut source, _), (mut sink, _)) = (listener.accept()?, listener.accept()?);
    let mut record = [0; RECORD + TAG];
    for _ in 0..RECORDS {
        match direction {
            Direction::Down => {
                source.read_exact(&mut record)?;
                key.open(&mut record)?;
                sink.write_all(&record[..RECORD])?;
            }
            Direction::Up => {
                source.read_exact(&mut record[..RECORD])?;
                key.seal(&mut record)?;
                sink.write_all(&record)?;
            }
        }
    }
    drop(sink);
    // Until it is ended, so that its CPU time can be read.
    source.read_to_end(&mut Vec::new()).map(drop)
}

/// The CPU seconds for each GB in this direction.
pub async fn measure(dir: &Path, direction: Direction) -> io::Result<f64> {
    let port = crate::contestant::free_ports()?.imap;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["floor", &port.to_string(), &direction.to_string()]);
    let mut process = Process::start(&mut command, &dir.join("floor.log"))?;
    process.listening(port).await?;
    let mut source = connect(port).await?;
    let mut sink = connect(port).await?;
    let mut writer = source.try_clone()?;
    let sender = thread::spawn(move || {
        let mut record = [b'x'; RECORD + TAG];
        Key::new()?.seal(&mut record)?;
        let length = match direction {
            Direction::Down => RECORD + TAG,
            Direction::Up => RECORD,
        };
        (0..RECORDS).try_for_each(|_| writer.write_all(&record[..length]))
    });
    let receiver = thread::spawn(move || io::copy(&mut sink, &mut io::sink()));
    tokio::task::spawn_blocking(move || {
        sender.join().and_then(|sent| receiver.join().map(|received| (sent, received)))
    })
    .await?
    .map_err(|_| io::Error::other("a thread ended with a panic"))
    .and_then(|(sent, received)| sent.and(received))?;
    let used = process.cpu()?;
    source.flush()?;
    Ok(used / (RECORDS * RECORD) as f64 * 1e9)
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}
