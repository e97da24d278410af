//! The names under which the page answers.

use axum::http::HeaderMap;
use axum::http::header::HOST;

/// The hosts under which the page answers. Under any other name a foreign site could make it answer (DNS rebinding).
pub enum OwnHosts {
    Exactly(Vec<String>),
    /// A browser reaches a Unix socket through a tunnel at any port.
    LocalAtAnyPort,
}

impl OwnHosts {
    pub fn has(&self, headers: &HeaderMap) -> bool {
        let mut all = headers.get_all(HOST).iter();
        let (Some(host), None) = (all.next().and_then(|host| host.to_str().ok()), all.next()) else { return false };
        match self {
            Self::Exactly(hosts) => hosts.iter().any(|own| own == host),
            Self::LocalAtAnyPort => ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
                let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
                let rest = host.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_hosts_are_answered() {
        let has = |hosts: &OwnHosts, host: &str| hosts.has(&HeaderMap::from_iter([(HOST, host.parse().unwrap())]));
        let port = OwnHosts::Exactly(vec!["127.0.0.1:8143".to_owned(), "localhost:8143".to_owned()]);
        for (host, exactly, at_any_port) in [
            ("127.0.0.1:8143", true, true),
            ("localhost:8143", true, true),
            ("localhost:8144", false, true),
            ("localhost", false, true),
            ("[::1]:1", false, true),
            ("evil.test:8143", false, false),
            ("localhost.evil.test:8143", false, false),
            ("localhost:8143.evil.test", false, false),
            ("localhostevil:8143", false, false),
            ("localhost8143", false, false),
            ("", false, false),
        ] {
            assert_eq!(has(&port, host), exactly, "{host}");
            assert_eq!(has(&OwnHosts::LocalAtAnyPort, host), at_any_port, "{host}");
        }
        let two = [(HOST, "127.0.0.1:8143".parse().unwrap()), (HOST, "evil.test".parse().unwrap())];
        let mut headers = HeaderMap::new();
        for (name, value) in two {
            headers.append(name, value);
        }
        assert!(!port.has(&headers));
    }
}
