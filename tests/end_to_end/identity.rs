//! Who has signed in: what the authorization server says about it, and what postkey believes.

use crate::command_line::{authorize, begin, expect, log_in_everywhere, password, visit};
use crate::introduction::{house, open};
use crate::support::house::{ANN, BEN, House};
use crate::support::process::Process;
use crate::support::{IdToken, Publishes};

/// Somebody signs in as this person, whose browser shows this much of a page. Returns the new address, if there is one.
async fn sign_in(house: &House, url: &str, address: &str, shown: &str) {
    let (status, page) = visit(house, house.provider.person().consent(url, address).await).await;
    assert_eq!((status, page.contains(shown)), (303, true), "{page}");
}

fn next_url(process: &mut Process) -> String {
    process.hear("/authorize?").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_wrong_account_the_person_may_try_again() {
    let mut house = house(open()).await;
    let _daemon = house.serve().await;
    let main = password(&authorize(&house, &["authorize", ANN]).await);
    let (mut process, first) = begin(&house, &["authorize", ANN]);
    let unused = house.provider.person().consent(&first, ANN).await;
    sign_in(&house, &first, BEN, "Somebody else").await;
    process.hear_complaint("ben@example.test has signed in, not ann@example.test");
    let second = next_url(&mut process);
    assert_ne!(first, second);
    assert_eq!(visit(&house, unused.clone()).await.0, 400, "the first request is over");
    process.say(unused.as_str());
    process.hear_complaint("belongs to another attempt");
    log_in_everywhere(&house, &main).await;

    process.say(house.provider.person().consent(&second, BEN).await.as_str());
    process.hear_complaint("ben@example.test has signed in, not ann@example.test");
    let third = next_url(&mut process);
    sign_in(&house, &third, ANN, "Done").await;
    expect(&process.end(), 0, "");
    log_in_everywhere(&house, &main).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_id_token_is_believed_if_it_is_what_it_has_to_be() {
    for (id_token, keys, words) in [
        (IdToken::Good, true, None),
        (IdToken::Forged, true, Some("not signed by one of the issuer's keys (its algorithm is ES256)")),
        (IdToken::Unsigned, true, Some("not signed by one of the issuer's keys (its algorithm is none)")),
        (IdToken::OtherNonce, true, Some("answers another request")),
        (IdToken::OtherAudience, true, Some("for another client")),
        (IdToken::OtherNonce, false, Some("answers another request")),
        // TLS vouches for it if the keys are not available.
        (IdToken::Good, false, None),
    ] {
        let house = house(Publishes { keys, ..open() }).await;
        house.provider.change(|settings| settings.id_token = id_token);
        let (process, url) = begin(&house, &["authorize", ANN]);
        sign_in(&house, &url, ANN, if words.is_some() { "Not authorized" } else { "Done" }).await;
        expect(&process.end(), if words.is_some() { 77 } else { 0 }, words.unwrap_or_default());
        assert_eq!(house.run(&["status"], "").out.contains(ANN), words.is_none(), "{id_token:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn userinfo_tells_who_has_signed_in_where_there_is_no_id_token() {
    for userinfo in [true, false] {
        let house = house(Publishes { userinfo, ..open() }).await;
        house.provider.change(|settings| settings.id_token = IdToken::None);
        let (mut process, url) = begin(&house, &["authorize", ANN]);
        if userinfo {
            sign_in(&house, &url, BEN, "Somebody else").await;
            process.hear_complaint("ben@example.test has signed in");
            let url = next_url(&mut process);
            sign_in(&house, &url, ANN, "Done").await;
        } else {
            sign_in(&house, &url, ANN, "Done").await;
        }
        let ended = process.end();
        expect(&ended, 0, "");
        assert_eq!(ended.err.contains("own does not say who has signed in"), !userinfo, "{}", ended.err);
    }
}
