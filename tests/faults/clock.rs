//! The machine's clock jumps while postkey runs.

use postkey::protocol::Protocol;

use crate::support::house::{House, LIFE};

const DAY: u64 = 24 * 3600;

/// Moves the clock by so many seconds, which may be negative.
fn jump(house: &House, seconds: i64) {
    house.pass(seconds.cast_unsigned());
}

/// Logs in by all protocols, several times, and counts what that took of the token endpoint.
async fn refreshes(house: &House) -> usize {
    let before = house.provider.requests().len();
    for _ in 0..3 {
        for protocol in Protocol::ALL {
            house.logged_in(protocol).await.prove().await;
        }
    }
    house.provider.requests().len() - before
}

#[tokio::test]
async fn a_jump_costs_one_refresh_at_most() {
    let days = |days: i64| days * DAY.cast_signed();
    for far in [days(7), days(-7), days(50 * 365), days(-50 * 365), -200, 200] {
        let house = House::open().await;
        let mut session = house.logged_in(Protocol::Imap).await;
        jump(&house, far);
        let once = refreshes(&house).await;
        assert!(once <= 1, "{once} refreshes after a jump of {far} s");
        assert_eq!(once, usize::from(far.unsigned_abs() > LIFE), "what is not expired for sure is used, after {far} s");
        jump(&house, -far);
        assert!(refreshes(&house).await <= 1, "and back");
        session.prove().await;
        let refused = Protocol::ALL.iter().flat_map(|protocol| house.provider.attempts(*protocol));
        assert_eq!(refused.filter(|attempt| !attempt.accepted).count(), 0, "no token was sent that is not good");
    }
}
