//! The last logins, for the page in the browser: a person sees at once whether a mail program gets through, and why not.
//! They are only in memory, and contain no secrets.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::Serialize;
use tokio::sync::watch;

use crate::clock::Moment;
use crate::mutex::lock;
use crate::protocol::Protocol;

/// How many logins are kept.
const KEPT: usize = 100;

#[derive(Default)]
pub struct LoginJournal {
    /// The newest is the last.
    logins: Mutex<VecDeque<LoginRecord>>,
    /// The number of the newest one; 0 if there is none.
    newest: watch::Sender<u64>,
}

/// A login of a mail program, and its answer.
#[derive(Clone, Debug, Serialize)]
pub struct LoginRecord {
    /// Later logins have higher numbers, from 1.
    pub number: u64,
    pub at: Moment,
    /// The login name, as the log may show it.
    pub account: String,
    pub protocol: Protocol,
    /// The program's address.
    pub from: String,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
}

impl LoginJournal {
    pub fn add(&self, login: LoginRecord) {
        let mut logins = lock(&self.logins);
        let number = logins.back().map_or(1, |last| last.number + 1);
        logins.push_back(LoginRecord { number, ..login });
        if logins.len() > KEPT {
            logins.pop_front();
        }
        self.newest.send_replace(number);
    }

    /// The logins after the one with this number, the newest last.
    pub fn after(&self, number: u64) -> Vec<LoginRecord> {
        lock(&self.logins).iter().filter(|login| login.number > number).cloned().collect()
    }

    /// Tells the number of the newest login whenever there is another one.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_logins_are_kept() {
        let journal = LoginJournal::default();
        let login = |account: &str| LoginRecord {
            number: 0,
            at: Moment(0),
            account: account.to_owned(),
            protocol: Protocol::Imap,
            from: String::new(),
            refused: None,
        };
        for number in 1..=KEPT + 5 {
            journal.add(login(&number.to_string()));
        }
        let all = journal.after(0);
        assert_eq!((all.len(), all[0].number, all[KEPT - 1].account.as_str()), (KEPT, 6, "105"));
        assert_eq!(journal.after(104).len(), 1);
        assert_eq!(*journal.newest().borrow(), 105);
    }
}
