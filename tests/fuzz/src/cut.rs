//! One peer's bytes, which arrive in pieces of any size: a connection without a socket.

use std::iter::Cycle;
use std::slice::Iter;

use postkey::wire::Dialogue;
use postkey::wire::framer::Framer;

/// How bytes arrive: in pieces of these sizes in turn, less one.
pub type Sizes<'a> = &'a [u8];

/// What a peer sends, and how much of it has arrived.
pub struct Wire<'a> {
    coming: &'a [u8],
    sizes: Option<Cycle<Iter<'a, u8>>>,
    framer: Framer,
}

impl<'a> Wire<'a> {
    /// Nothing has arrived yet.
    pub fn new(bytes: &'a [u8], sizes: Option<Sizes<'a>>) -> Self {
        Self { coming: bytes, sizes: sizes.map(|sizes| sizes.iter().cycle()), framer: Framer::default() }
    }

    /// Like [`postkey::net::connection::Connection::converse`]. None once the peer sends nothing more.
    pub fn converse<E>(&mut self, dialogue: &mut dyn Dialogue<Event = E>, out: &mut Vec<u8>) -> Option<E> {
        loop {
            while let Some(frame) = self.framer.next(dialogue.want()) {
                if let Some(event) = dialogue.feed(frame, out) {
                    return Some(event);
                }
            }
            if self.coming.is_empty() {
                return None;
            }
            self.arrive();
        }
    }

    fn arrive(&mut self) {
        let size = self.sizes.as_mut().and_then(Iterator::next).map_or(usize::MAX, |&size| usize::from(size) + 1);
        let (piece, later) = self.coming.split_at(size.min(self.coming.len()));
        self.framer.push(piece);
        self.coming = later;
    }

    /// Whether the peer has sent nothing before a TLS handshake. Bytes that are still to come would disturb it.
    pub fn is_quiet(&self) -> bool {
        self.framer.is_empty() && self.coming.is_empty()
    }

    /// The unused bytes: the first bytes of the relay, and those after them.
    pub fn into_rest(self) -> Vec<u8> {
        [&self.framer.into_rest(), self.coming].concat()
    }
}

/// The input's first bytes, which say how to use the rest: `N` of them are options, three are [`Sizes`].
pub fn options<const N: usize>(input: &[u8]) -> Option<([u8; N], Sizes<'_>, &[u8])> {
    let (options, input) = input.split_first_chunk::<N>()?;
    let (sizes, input) = input.split_at_checked(3)?;
    Some((*options, sizes, input))
}
