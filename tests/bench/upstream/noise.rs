//! Bytes of every value in pieces of every size, in both directions at once, until both sides have reported the end.
//!
//! After `XNOISE SIZE SEED` the server sends SIZE bytes, receives as many, sends the SHA-256 of what it received, and
//! ends, as a mail server ends after QUIT. So one exchange shows that both directions are complete, and that a client
//! that has ended its half gets its answer.

use std::io;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

/// A SHA-256.
pub type Hash = [u8; 32];

/// The most bytes that are hashed, sent and read at a time.
const PIECE: usize = 1 << 17;

/// The size and the seed, if this command is for us.
pub fn wanted(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_once("XNOISE ")?.1.split(' ').map(str::parse);
    Some((words.next()?.ok()?, words.next()?.ok()?))
}

/// The server's part.
pub async fn answer(stream: impl AsyncRead + AsyncWrite, size: u64, seed: u64) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let ((_, hash), ()) = tokio::try_join!(receive(reader, size, false), send(&mut writer, size, seed))?;
    writer.write_all(&hash).await?;
    writer.shutdown().await
}

/// The hash of this much noise.
pub fn hash(size: u64, seed: u64) -> Hash {
    let (mut noise, mut hasher, mut left) = (Noise(seed), Sha256::new(), size);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        noise.fill(&mut piece);
        hasher.update(&piece[..length]);
        left -= length as u64;
    }
    hasher.finalize().into()
}

/// Sends this much noise: single bytes, TLS records, whole buffers, and everything between.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), size: u64, seed: u64) -> io::Result<()> {
    let (mut noise, mut left) = (Noise(seed), size);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        noise.fill(&mut piece);
        let length = left.min(PIECE as u64) as usize;
        let mut rest = &piece[..length];
        left -= length as u64;
        // A part of each piece is cut at random, and the rest goes in one, because small pieces alone would take too
        // long.
        for cut in piece[..8].iter().map(|byte| 1_usize << (byte % 16)) {
            let (first, later) = rest.split_at(cut.min(rest.len()));
            to.write_all(first).await?;
            to.flush().await?;
            rest = later;
        }
        to.write_all(rest).await?;
    }
    to.flush().await
}

/// Receives this much, or all there is if that is less. Returns how much that was, and its hash. With `dawdle`, it
/// pauses now and then.
pub async fn receive(mut from: impl AsyncRead + Unpin, size: u64, dawdle: bool) -> io::Result<(u64, Hash)> {
    let (mut hasher, mut taken) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE];
    while taken < size {
        let wanted = piece.len().min(usize::try_from(size - taken).unwrap_or(usize::MAX));
        let count = from.read(&mut piece[..wanted]).await?;
        if count == 0 {
            break;
        }
        hasher.update(&piece[..count]);
        taken += count as u64;
        if dawdle && piece[0].is_multiple_of(64) {
            sleep(Duration::from_millis(u64::from(piece[0] / 64) * 3)).await;
        }
    }
    Ok((taken, hasher.finalize().into()))
}

/// A generator of noise (xorshift64). Every seed except 0 gives another sequence.
struct Noise(u64);

impl Noise {
    /// Fills a piece; its length is a multiple of 8.
    fn fill(&mut self, piece: &mut [u8]) {
        for eight in piece.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            eight.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}
