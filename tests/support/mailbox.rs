//! Mailboxes in memory, one per address.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::lock;

/// A message in a mailbox.
#[derive(Clone)]
pub struct Message {
    /// Never given twice in the same mailbox.
    pub uid: u32,
    pub bytes: Vec<u8>,
    /// IMAP flags, such as `\Seen`.
    pub flags: Vec<String>,
}

#[derive(Default)]
struct Mailbox {
    messages: Vec<Message>,
    last_uid: u32,
}

impl Message {
    /// Whether it has this flag.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }
}

/// All mailboxes of a provider.
pub struct Mailboxes {
    by_address: Mutex<BTreeMap<String, Mailbox>>,
    /// Increases with every change of any mailbox.
    changes: watch::Sender<u64>,
}

impl Mailboxes {
    /// An empty mailbox for each address.
    pub fn new(addresses: &[String]) -> Self {
        let empty = addresses.iter().map(|address| (address.clone(), Mailbox::default()));
        Self { by_address: Mutex::new(empty.collect()), changes: watch::Sender::new(0) }
    }

    /// Whether there is a mailbox of this address, whatever the case of its letters.
    pub fn has(&self, address: &str) -> bool {
        lock(&self.by_address).contains_key(&address.to_ascii_lowercase())
    }

    /// Adds a message and returns its UID, or None where there is no such mailbox.
    pub fn deliver(&self, address: &str, bytes: &[u8], flags: &[String]) -> Option<u32> {
        self.change(address, |mailbox| {
            mailbox.last_uid += 1;
            let (uid, bytes, flags) = (mailbox.last_uid, bytes.to_vec(), flags.to_vec());
            mailbox.messages.push(Message { uid, bytes, flags });
            mailbox.last_uid
        })
    }

    /// The messages, oldest first; none where there is no such mailbox.
    pub fn messages(&self, address: &str) -> Vec<Message> {
        lock(&self.by_address).get(address).map(|mailbox| mailbox.messages.clone()).unwrap_or_default()
    }

    /// Removes the messages with these UIDs.
    pub fn remove(&self, address: &str, uids: &[u32]) {
        self.change(address, |mailbox| mailbox.messages.retain(|message| !uids.contains(&message.uid)));
    }

    /// Gives a message the flags that this copy of it has; nothing happens if it is gone.
    pub fn keep_flags(&self, address: &str, copy: &Message) {
        self.change(address, |mailbox| {
            if let Some(message) = mailbox.messages.iter_mut().find(|message| message.uid == copy.uid) {
                message.flags.clone_from(&copy.flags);
            }
        });
    }

    /// The UID that the next message will get.
    pub fn next_uid(&self, address: &str) -> u32 {
        lock(&self.by_address).get(address).map_or(1, |mailbox| mailbox.last_uid + 1)
    }

    /// Notifies about every change from now on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn change<T>(&self, address: &str, change: impl FnOnce(&mut Mailbox) -> T) -> Option<T> {
        let changed = lock(&self.by_address).get_mut(&address.to_ascii_lowercase()).map(change);
        self.changes.send_modify(|count| *count += 1);
        changed
    }
}
