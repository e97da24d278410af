//! Who may use the page: links that are good once, and the browsers that have come with one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Extension;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use crate::mutex::lock;
use crate::net::peer::Visitor;
use crate::random;

/// How long a link is good: long enough to copy it to another machine.
const LINK: Duration = Duration::from_secs(600);

/// The mail program whose settings are offered first.
const PROGRAM: &str = "thunderbird";

/// The browsers that have entered, and the links with which others can.
pub struct Entrance {
    /// The name of the cookie. It is random, because browsers send a cookie to all ports of a host, and another page of
    /// postkey there has another cookie.
    cookie: String,
    links: Mutex<HashMap<String, Link>>,
    /// By the value of the cookie.
    sessions: Mutex<HashMap<String, Arc<BrowserSession>>>,
}

struct Link {
    users: Vec<u32>,
    until: Instant,
}

/// The session of the browser that sends a request. The gate adds it.
pub type OwnSession = Extension<Arc<BrowserSession>>;

/// A browser that has entered.
pub struct BrowserSession {
    /// The users of this machine from whose browsers it is accepted.
    pub users: Vec<u32>,
    /// Every form sends this key, so that pages of other sites cannot send one (cross-site request forgery).
    pub form_key: String,
    /// The mail program for which settings were shown last.
    program: Mutex<String>,
}

impl BrowserSession {
    /// The mail program for which settings were shown last; at first the one that most people have.
    pub fn program(&self) -> String {
        lock(&self.program).clone()
    }

    /// Remembers the mail program for the next settings.
    pub fn choose(&self, program: &str) {
        program.clone_into(&mut lock(&self.program));
    }

    /// Whether a form has sent this session's key. The time it takes does not depend on the key.
    pub fn has_key(&self, sent: &str) -> bool {
        self.form_key.as_bytes().ct_eq(sent.as_bytes()).into()
    }
}

impl Entrance {
    pub fn new() -> Self {
        Self { cookie: format!("postkey-{}", random::name()), links: Mutex::default(), sessions: Mutex::default() }
    }

    /// Makes a link for these users. Returns its secret part.
    pub fn link(&self, users: Vec<u32>) -> String {
        let (name, now) = (random::name(), Instant::now());
        let mut links = lock(&self.links);
        links.retain(|_, link| link.until > now);
        links.insert(name.clone(), Link { users, until: now + LINK });
        name
    }

    /// Uses a link up. Returns the cookie for the browser, or None if the link is not good, or not for this user.
    pub fn enter(&self, name: &str, visitor: Visitor) -> Option<String> {
        let link = lock(&self.links).remove(name).filter(|link| link.until > Instant::now())?;
        if !visitor.may_be(|user| link.users.contains(&user)) {
            return None;
        }
        let value = random::name();
        let session =
            BrowserSession { users: link.users, form_key: random::name(), program: Mutex::new(PROGRAM.to_owned()) };
        lock(&self.sessions).insert(value.clone(), Arc::new(session));
        Some(format!("{}={value}; Path=/; HttpOnly; SameSite=Strict", self.cookie))
    }

    /// The session of a browser, if it sends the cookie.
    pub fn session(&self, headers: &HeaderMap) -> Option<Arc<BrowserSession>> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == self.cookie)?;
        lock(&self.sessions).get(value).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_cookie(text: &str) -> HeaderMap {
        let pair = text.split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, format!("other=1; {pair}").parse().unwrap())])
    }

    #[test]
    fn a_link_is_good_once_and_for_its_users() {
        let entrance = Entrance::new();
        let link = entrance.link(vec![7]);
        let cookie = entrance.enter(&link, Visitor::User(7)).unwrap();
        assert!(entrance.enter(&link, Visitor::User(7)).is_none(), "twice");
        assert_eq!(entrance.session(&with_cookie(&cookie)).unwrap().users, [7]);
        assert!(entrance.session(&HeaderMap::new()).is_none());
        for visitor in [Visitor::User(8), Visitor::Nobody] {
            assert!(entrance.enter(&entrance.link(vec![7]), visitor).is_none());
        }
        assert!(Entrance::new().session(&with_cookie(&cookie)).is_none(), "another page");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_not_good_for_ever() {
        let entrance = Entrance::new();
        let link = entrance.link(vec![7]);
        tokio::time::advance(LINK).await;
        assert!(entrance.enter(&link, Visitor::User(7)).is_none());
    }
}
