//! A proxy that is silent: the client is told to try later, in time.

use postkey::protocol::Security;

use super::watch::{TRY_LATER, answered, begin_logins};
use crate::support::Options;
use crate::support::house::{House, LIFE};
use crate::support::proxy::{Manner, Proxy};

/// The longest wait for an answer if the mail server is not reached, and if the token endpoint is not, in seconds: 15
/// and 30, and some for the machine.
const REACH: u64 = 15 + 4;
const ALL: u64 = 30 + 6;

#[tokio::test]
async fn a_silent_proxy_does_not_keep_clients_waiting() {
    for kind in ["http", "socks5"] {
        for (life, limit) in [(0, REACH), (LIFE, ALL)] {
            let proxy = Proxy::start().await;
            proxy.behave(Manner::Silent);
            let way = format!("proxy = \"{kind}://127.0.0.1:{}\"\n", proxy.port);
            let options = Options { https: true, ..Options::default() };
            let mut house = House::furnished_with(Security::Tls, options, |config| way + &config).await;
            house.start().await;
            house.pass(life);
            let mut logins = begin_logins(&house).await;
            let seconds = answered(&mut logins, TRY_LATER, kind).await;
            assert!((5..limit).contains(&seconds), "{kind}, {life}: {seconds} s");
            assert!(proxy.connections() >= 3, "{kind}: only {}", proxy.connections());
        }
    }
}
