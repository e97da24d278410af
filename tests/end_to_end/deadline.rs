//! How long a client may take to log in.

use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tokio::time::timeout;

use crate::support::house::{House, skip};

#[tokio::test]
async fn a_client_has_a_minute_whatever_it_says_meanwhile() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        for _ in 0..5 {
            skip(Duration::from_secs(11)).await;
            program.client.ask("a NOOP").await;
        }
        skip(Duration::from_secs(6)).await;
        let said = timeout(Duration::from_secs(4), program.client.rest()).await.expect("the end of its minute");
        let said = String::from_utf8(said).unwrap();
        let goodbye = ["* BYE [UNAVAILABLE]", "-ERR [SYS/TEMP]", "421 4.3.2"][protocol as usize];
        assert!(said.starts_with(goodbye), "{said}");
        assert_eq!(house.provider.connections(protocol), 0, "nobody has logged in");
    }
}
