//! First logins against strangers: without consent in this very browser, and without the mail program's password,
//! nobody changes anybody's account or keeps anybody from theirs.

use std::sync::Arc;
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tokio::sync::Semaphore;
use url::Url;

use crate::first_login::{
    PASSWORD, Page, addresses, authorize, consent, go_on, log_in, office, page, type_password, visit,
};
use crate::support::TokenEndpoint;
use crate::support::house::{ANN, BEN, House, OFFICE, skip, until};
use crate::users::{MALLORY, as_user, can_be_others, request_as};

const EVIL: &str = "a stranger's password";

/// The page of a first login to Ben's address.
async fn page_of(house: &House, password: &str) -> Url {
    page(Protocol::Imap, &log_in(house, Protocol::Imap, BEN, password).await)
}

/// The provider holds token requests back until the gate has a permit for each.
fn gate(house: &House) -> Arc<Semaphore> {
    let gate = Arc::new(Semaphore::new(0));
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Gate(Arc::clone(&gate)));
    gate
}

/// Lets this many consents through: each needs a request for its code, and one for the first refresh.
fn open(gate: &Semaphore, consents: usize) {
    gate.add_permits(2 * consents);
}

async fn exchanging(house: &House, requests: usize) {
    until("the exchange", async || house.provider.token_requests("authorization_code") == requests).await;
}

async fn revoked(house: &House, times: usize) {
    // A refresh token and an access token each.
    until("the revocation", async || house.provider.revocations().len() == 2 * times).await;
}

async fn assert_only_the_right_password_opens(house: &House) {
    let evil = log_in(house, Protocol::Imap, BEN, EVIL).await;
    assert!(evil.starts_with("a NO [AUTHENTICATIONFAILED]"), "{evil}");
    assert!(log_in(house, Protocol::Imap, BEN, PASSWORD).await.starts_with("a OK"));
}

/// The stranger logs in as Ben, opens the page himself, and has Ben's browser consent: by a link to the provider, or by
/// a web page that sends Ben's browser there.
#[tokio::test]
async fn a_strangers_page_that_another_browser_consents_on_lets_nobody_in() {
    let house = office("").await;
    let strangers = page_of(&house, EVIL).await;
    let returned = visit(&house, consent(&house, &strangers, BEN).await).await;
    assert!(returned.status == 200 && returned.text.contains(BEN), "{}", returned.text);
    assert_eq!(addresses(&house).await, [ANN], "nothing is made by the return");
    // The stranger knows his own password and all addresses, but only Ben's browser has the key.
    for key in ["", "00000000000000000000000000000000", strangers.query().unwrap().split_once('=').unwrap().1] {
        let guessed = Page { text: format!("name=\"key\" value=\"{key}\""), status: 200, place: String::new() };
        assert_eq!(type_password(&house, &guessed, &strangers, EVIL).await.status, 404, "{key}");
    }
    // Ben types his own password.
    for _ in 0..4 {
        assert_eq!(type_password(&house, &returned, &strangers, PASSWORD).await.status, 403);
    }
    let last = type_password(&house, &returned, &strangers, PASSWORD).await;
    assert!(last.status == 403 && last.key().is_empty(), "{}", last.text);
    assert_eq!(type_password(&house, &returned, &strangers, EVIL).await.status, 404, "it has ended");
    revoked(&house, 1).await;
    assert_eq!(visit(&house, strangers.clone()).await.status, 404, "and so has the stranger's attempt");
    let own = page_of(&house, PASSWORD).await;
    assert_ne!(own, strangers);
    assert_eq!(authorize(&house, &own, BEN).await, "/?authorized");
    assert_only_the_right_password_opens(&house).await;
}

/// Nobody else's sign-in counts for Ben, and its tokens are revoked.
#[tokio::test]
async fn a_stranger_who_signs_in_as_himself_leaves_the_page_and_gives_his_tokens_back() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    assert_eq!(authorize(&house, &bens, OFFICE).await, "/?somebody-else");
    revoked(&house, 1).await;
    // Ann has an account, and some providers would end that, too.
    assert_eq!(authorize(&house, &bens, ANN).await, "/?somebody-else");
    assert_eq!(authorize(&house, &bens, BEN).await, "/?authorized");
    assert_only_the_right_password_opens(&house).await;
    assert!(log_in(&house, Protocol::Imap, ANN, &house.password).await.starts_with("a OK"));
    assert_eq!(house.provider.revocations().len(), 2);
}

/// While Ben's code is exchanged, the stranger does whatever he can: wrong passwords, logins, visits.
#[tokio::test]
async fn what_a_stranger_does_during_the_exchange_changes_nothing() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    let (gate, back) = (gate(&house), consent(&house, &bens, BEN).await);
    let attack = async {
        exchanging(&house, 1).await;
        for _ in 0..10 {
            let nothing = Page { text: String::new(), status: 200, place: String::new() };
            type_password(&house, &nothing, &bens, EVIL).await;
            log_in(&house, Protocol::Imap, BEN, EVIL).await;
            go_on(&house, &bens).await;
        }
        assert_eq!(visit(&house, back.clone()).await.status, 404, "the same answer a second time");
        open(&gate, 1);
    };
    let (returned, ()) = tokio::join!(visit(&house, back.clone()), attack);
    assert_eq!(type_password(&house, &returned, &bens, PASSWORD).await.place, "/?authorized");
    assert_only_the_right_password_opens(&house).await;
}

/// The time for consent ends during the exchange, and others begin. What belongs to one attempt stays together.
#[tokio::test]
async fn a_deadline_during_the_exchange_does_not_mix_up_attempts() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    let (gate, back) = (gate(&house), consent(&house, &bens, BEN).await);
    skip(Duration::from_secs(15 * 60 - 5)).await;
    let attack = async {
        exchanging(&house, 1).await;
        skip(Duration::from_secs(6)).await;
        let strangers = page_of(&house, EVIL).await;
        assert_ne!(strangers, bens, "Ben's attempt is over, and nothing of it is left to the next");
        open(&gate, 1);
        strangers
    };
    let (returned, strangers) = tokio::join!(visit(&house, back), attack);
    assert_eq!(type_password(&house, &returned, &bens, EVIL).await.status, 403);
    assert_eq!(type_password(&house, &returned, &bens, PASSWORD).await.place, "/?authorized");
    assert_only_the_right_password_opens(&house).await;
    assert_eq!(visit(&house, strangers).await.status, 404);
}

/// Two people consent at once to two requests for one address; each types their own password.
#[tokio::test]
async fn of_two_consents_at_once_one_makes_the_account_and_stays() {
    let house = office("").await;
    let pages = [page_of(&house, PASSWORD).await, page_of(&house, EVIL).await];
    let gate = gate(&house);
    let backs = [consent(&house, &pages[0], BEN).await, consent(&house, &pages[1], BEN).await];
    let open = async {
        exchanging(&house, 2).await;
        open(&gate, 2);
    };
    let (first, second, ()) = tokio::join!(visit(&house, backs[0].clone()), visit(&house, backs[1].clone()), open);
    assert_ne!(first.key(), second.key());
    let (one, other) = tokio::join!(
        type_password(&house, &first, &pages[0], PASSWORD),
        type_password(&house, &second, &pages[1], PASSWORD)
    );
    let mut outcomes = [(one.status, one.place), (other.status, other.place)];
    outcomes.sort();
    assert_eq!(outcomes, [(303, "/?authorized".to_owned()), (409, String::new())]);
    // Revoking one would end both at some providers.
    assert_eq!(house.provider.revocations(), [""; 0]);
    assert_only_the_right_password_opens(&house).await;
}

#[tokio::test]
async fn a_double_post_gets_the_same_answer_and_makes_one_account() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    let returned = visit(&house, consent(&house, &bens, BEN).await).await;
    let post = || type_password(&house, &returned, &bens, PASSWORD);
    let (one, two, three) = tokio::join!(post(), post(), post());
    assert_eq!([one.place, two.place, three.place], ["/?authorized"; 3]);
    assert_eq!(post().await.place, "/?authorized", "the button once more, by the back button");
    assert_eq!(addresses(&house).await, [ANN, BEN]);
    assert_only_the_right_password_opens(&house).await;
}

#[tokio::test]
async fn a_page_that_is_loaded_again_asks_the_provider_nothing_and_the_way_stays_open() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    let back = consent(&house, &bens, BEN).await;
    let returned = visit(&house, back.clone()).await;
    assert_eq!(visit(&house, back).await.status, 404);
    assert_eq!(house.provider.token_requests("authorization_code"), 1, "a code that is sent twice ends its tokens");
    assert_eq!(authorize(&house, &bens, BEN).await, "/?authorized", "from the mail program's page again");
    assert_eq!(type_password(&house, &returned, &bens, PASSWORD).await.status, 409, "and the old page is of no use");
    assert_only_the_right_password_opens(&house).await;
}

/// A browser that disconnects during the exchange leaves no tokens that nobody knows of.
#[tokio::test]
async fn consents_that_nobody_confirms_are_given_back() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    let returned = visit(&house, consent(&house, &bens, BEN).await).await;
    let (gate, back) = (gate(&house), consent(&house, &bens, BEN).await);
    let hung_up = house.provider.http_client().get(back).send();
    tokio::select! {
        _ = hung_up => panic!("an answer"),
        () = exchanging(&house, 2) => open(&gate, 1),
    }
    until("the first refresh", async || house.provider.token_requests("refresh_token") == 2).await;
    // A consent has five minutes, and the page fifteen. All at once, because a revocation that has begun has 20
    // seconds.
    skip(Duration::from_secs(6 * 60)).await;
    until("the revocation", async || !house.provider.revocations().is_empty()).await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    assert_eq!(type_password(&house, &returned, &bens, PASSWORD).await.status, 404);
    assert_eq!(addresses(&house).await, [ANN]);
    assert_eq!(authorize(&house, &bens, BEN).await, "/?authorized", "the page still has its time");
}

#[tokio::test]
async fn a_stop_gives_consents_back() {
    let mut house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    visit(&house, consent(&house, &bens, BEN).await).await;
    house.stop().await;
    assert_eq!(house.provider.revocations().len(), 2);
}

/// A person is slow at the provider, and a stranger has the page and is fast.
#[tokio::test]
async fn a_fast_stranger_does_not_push_a_slow_person_out() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    let early = go_on(&house, &bens).await;
    for number in 0..40 {
        go_on(&house, &bens).await;
        log_in(&house, Protocol::Imap, BEN, &format!("{EVIL} {number}")).await;
    }
    let late = go_on(&house, &bens).await;
    for url in [&late, &early] {
        let back = house.provider.person().consent(url, BEN).await;
        let returned = visit(&house, back).await;
        assert_eq!(returned.status, 200, "{}", returned.text);
        if url == &early {
            assert_eq!(type_password(&house, &returned, &bens, PASSWORD).await.place, "/?authorized");
        }
    }
    assert_only_the_right_password_opens(&house).await;
}

/// What a page of another site makes a browser send. The last ones are of a stranger's server on this machine.
#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    let returned = visit(&house, consent(&house, &bens, BEN).await).await;
    let mut confirm = bens.clone();
    confirm.set_query(None);
    let other_port = format!("http://127.0.0.1:{}", bens.port().unwrap() ^ 1);
    let own = format!("http://127.0.0.1:{}", bens.port().unwrap());
    let form = [("key", returned.key()), ("password", PASSWORD)];
    let post = async |url: &Url, header: &str, value: &str| {
        let request = house.provider.http_client().post(url.clone()).header(header, value).form(&form);
        request.send().await.unwrap().status().as_u16()
    };
    for (header, value) in [
        ("origin", "https://evil.test"),
        ("origin", "http://evil.test"),
        ("origin", "null"),
        ("origin", ""),
        ("origin", "http://127.0.0.1"),
        ("origin", "https://127.0.0.1"),
        ("origin", &other_port),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for url in [&bens, &confirm] {
            assert_eq!(post(url, header, value).await, 403, "{header}: {value}");
        }
    }
    assert_eq!(addresses(&house).await, [ANN]);
    assert_eq!(post(&bens, "sec-fetch-site", "same-origin").await, 303);
    assert_eq!(post(&confirm, "origin", &own).await, 303);
    assert_only_the_right_password_opens(&house).await;
}

/// The form's own page lets a browser name it: `Origin` would be `null` under `no-referrer`.
#[tokio::test]
async fn pages_with_a_form_can_be_neither_framed_nor_kept_and_name_their_origin() {
    let house = office("").await;
    let bens = page_of(&house, PASSWORD).await;
    for url in [bens.clone(), consent(&house, &bens, BEN).await] {
        let response = house.provider.http_client().get(url).send().await.unwrap();
        let headers = response.headers().clone();
        assert_eq!(headers["referrer-policy"], "same-origin");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
        assert!(response.text().await.unwrap().contains("<form"));
    }
}

/// The page of a first login by another user.
async fn page_as(uid: u32, house: &House, password: &str) -> Url {
    let login = format!("a LOGIN {BEN} \"{password}\"");
    let heard = as_user(uid, house.port(Protocol::Imap, Security::Clear), &[&login, "b LOGOUT"]).await;
    let page = heard.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:"));
    Url::parse(page.unwrap_or_else(|| panic!("no page in {heard}"))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_persons_page_is_for_browsers_of_that_user_only() {
    if !can_be_others() {
        return;
    }
    let house = office("").await;
    let page = page_as(MALLORY, &house, PASSWORD).await;
    let back = consent(&house, &page, BEN).await;
    let other = MALLORY + 1;
    for heard in [
        request_as(other, &page, "GET", "").await,
        request_as(other, &page, "POST", "").await,
        request_as(other, &back, "GET", "").await,
    ] {
        assert!(heard.starts_with("HTTP/1.1 403") && heard.contains("another user"), "{heard}");
    }
    // It has consumed nothing. Root's browser is accepted, like the person's own.
    let heard = request_as(MALLORY, &back, "GET", "").await;
    let returned = Page { status: 200, place: String::new(), text: heard };
    assert_eq!(returned.key().len(), 32, "{}", returned.text);
    let mut confirm = page.clone();
    confirm.set_query(None);
    let body = format!("key={}&password=correct+horse+battery&x=", returned.key());
    let refused = request_as(other, &confirm, "POST", &body).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert_eq!(addresses(&house).await, [ANN]);
    let heard = request_as(MALLORY, &confirm, "POST", &body).await;
    assert!(heard.contains("/?authorized"), "{heard}");
    assert_only_the_right_password_opens(&house).await;
}

/// A stranger continues from his page again and again, returns with invalid codes, and does not wait for the answers.
#[tokio::test]
async fn browsers_that_hang_up_cannot_cause_unlimited_requests() {
    let house = office("").await;
    let bens = page_of(&house, EVIL).await;
    let gate = gate(&house);
    for _ in 0..12 {
        let back = consent(&house, &bens, BEN).await;
        let visit = house.provider.http_client().get(back).send();
        assert!(tokio::time::timeout(Duration::from_millis(200), visit).await.is_err(), "the exchange waits");
    }
    assert_eq!(house.provider.token_requests("authorization_code"), 4);
    gate.add_permits(100);
    let mut returned = visit(&house, consent(&house, &bens, BEN).await).await;
    while returned.status != 200 {
        returned = visit(&house, consent(&house, &bens, BEN).await).await;
    }
    assert_eq!(returned.key().len(), 32, "a person is served behind them");
}

/// Each source has its own page and its own share.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stranger_keeps_nobody_else_from_beginning() {
    if !can_be_others() {
        return;
    }
    let house = office("").await;
    let strangers = page_as(MALLORY, &house, EVIL).await;
    let bens = page_of(&house, PASSWORD).await;
    assert_ne!(strangers, bens);
    let port = house.port(Protocol::Pop3, Security::Clear);
    let mut pages = 0;
    for round in 0..8 {
        let logins: Vec<String> =
            (0..5).flat_map(|n| [format!("USER u{round}{n}@example.test"), format!("PASS {EVIL}")]).collect();
        let lines: Vec<&str> = logins.iter().map(String::as_str).chain(["QUIT"]).collect();
        pages += as_user(MALLORY, port, &lines).await.matches("http://127.0.0.1").count();
    }
    assert_eq!(pages, 15, "with Ben's address, the share of one source");
    page(Protocol::Imap, &log_in(&house, Protocol::Imap, OFFICE, PASSWORD).await);
    assert_eq!(authorize(&house, &bens, BEN).await, "/?authorized");
    assert_only_the_right_password_opens(&house).await;
    assert_eq!(visit(&house, strangers).await.status, 404);
}
