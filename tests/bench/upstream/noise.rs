//! Bytes of every value in pieces of every size, both ways at once, until both sides have said that they are done.
//!
//! After `XNOISE SIZE SEED` the server sends SIZE bytes, takes as many, and then sends the SHA-256 of what it took and ends,
//! as a mail server ends behind QUIT. So one exchange shows both directions to be whole, and a client that has ended its half
//! to get its answer.

use std::io;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

/// A SHA-256.
pub type Hash = [u8; 32];

/// What is hashed, sent and read at a time, at most.
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

/// The hash of so much noise.
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

/// Sends so much noise: single bytes, TLS records, whole buffers, and everything between.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), size: u64, seed: u64) -> io::Result<()> {
    let (mut noise, mut left) = (Noise(seed), size);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        noise.fill(&mut piece);
        let length = left.min(PIECE as u64) as usize;
        let mut rest = &piece[..length];
        left -= length as u64;
        // A part of each piece is cut at random, the remainder goes in one; all of it in small ones would take all day.
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

/// Takes so much, or all there is if that is less; tells how much that was, and its hash. Who dawdles rests now and then.
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

/// A generator of noise (xorshift64); each seed but 0 has its own.
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
