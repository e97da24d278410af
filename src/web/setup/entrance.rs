//! Access to the page: one-time links, and the sessions of browsers that opened one.

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

/// The lifetime of a link, long enough to copy it to another machine.
const LINK: Duration = Duration::from_secs(600);

/// The mail program whose settings are offered first.
const PROGRAM: &str = "thunderbird";

/// The sessions of browsers, and the links that have not been used yet.
pub struct Entrance {
    /// The name of the cookie. It is random, because browsers send a cookie to all ports of a host, and another postkey may
    /// serve its page at another port.
    cookie: String,
    links: Mutex<HashMap<String, Link>>,
    /// By the value of the cookie.
    sessions: Mutex<HashMap<String, Arc<BrowserSession>>>,
}

struct Link {
    users: Vec<u32>,
    until: Instant,
}

/// The session of a request. The gate adds it.
pub type OwnSession = Extension<Arc<BrowserSession>>;

/// The session of a browser that opened a link.
pub struct BrowserSession {
    /// The users of this machine whose browsers may use it.
    pub users: Vec<u32>,
    /// Every form sends this key, so that pages of other sites cannot send one (cross-site request forgery).
    pub form_key: String,
    /// The mail program whose settings were shown last.
    program: Mutex<String>,
}

impl BrowserSession {
    /// The mail program whose settings were shown last; before that, the most common one.
    pub fn program(&self) -> String {
        lock(&self.program).clone()
    }

    /// Remembers a mail program as the default for the next page.
    pub fn choose(&self, program: &str) {
        program.clone_into(&mut lock(&self.program));
    }

    /// Whether this is the session's form key, compared in constant time.
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

    /// Invalidates a link. Returns the cookie for the browser, or None if the link is invalid, or for other users.
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

    /// The session to which the cookie of a request belongs.
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
