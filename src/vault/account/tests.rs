//! What the sealed part of a record is bound to.

use super::*;
use crate::config::provider::Endpoints;

const NOW: Moment = Moment(1_000_000);

fn tokens(name: &str) -> TokenSet {
    TokenSet {
        access: Token::parse(&format!("access-{name}")).unwrap(),
        refresh: Token::parse(&format!(r#"refresh-{name}-with-"quotes\""#)),
        life: Life { issued: NOW, expires: NOW.after(3600) },
        scope: String::new(),
    }
}

fn discovered(token: &str) -> Discovered {
    let endpoints = Endpoints { token: Some(token.parse().unwrap()), ..Endpoints::default() };
    let (is_registered, is_self_registered, methods) = Default::default();
    Discovered { issuer: "https://auth.example.test".into(), endpoints, is_registered, is_self_registered, methods }
}

/// An account with two slots, and their passwords.
fn account() -> (StoredAccount, [Password; 2]) {
    let passwords = [Password::generate(), Password::generate()];
    let authorization = Authorization {
        address: "ann@example.test".into(),
        provider: "test".into(),
        flow: Flow::Password,
        client_id: Some("client".into()),
        secrets: Secrets { client_secret: None, grant_secret: Some(Secret::new(b"own".to_vec())) },
        discovered: Some(discovered("https://auth.example.test/token")),
        tokens: tokens("1"),
    };
    let [first, second] = [0, 1].map(|which| Prepared::new(&passwords[which]).unwrap());
    let mut account = StoredAccount::begin(&authorization, Some(("main", &first)), 0, NOW).unwrap();
    account.put_tokens(&tokens("2")).unwrap();
    let (key, _) = account.unlock(&mut Search::new(&passwords[0])).unwrap();
    let limits = Limits { protocols: vec!["imap".into()], uids: vec![1000] };
    account.add_slot(&key, "phone", &second, limits, NOW).unwrap();
    (account, passwords)
}

fn take(account: &StoredAccount, password: &Password) -> Result<Unlocked, VaultError> {
    let (key, slot) = account.unlock(&mut Search::new(password))?;
    account.take_tokens(&key, slot)
}

fn is_damaged(account: &StoredAccount, password: &Password) -> bool {
    matches!(take(account, password), Err(VaultError::Damaged(_)))
}

#[test]
fn stored_tokens_and_secrets_open_with_each_password() {
    let (account, passwords) = account();
    for password in &passwords {
        let unlocked = take(&account, password).unwrap();
        assert_eq!((unlocked.tokens.access.expose(), unlocked.generation), ("access-2", 2));
        assert_eq!(unlocked.tokens.refresh.unwrap().expose(), r#"refresh-2-with-"quotes\""#);
        assert_eq!(unlocked.secrets.grant_secret.unwrap().expose(), b"own");
    }
    assert!(matches!(take(&account, &Password::generate()), Err(VaultError::WrongCredentials)));
}

#[test]
fn a_record_with_another_destination_for_the_tokens_does_not_open() {
    let (account, [password, _]) = account();
    type Forge = fn(&mut StoredAccount);
    let forge: [(&str, Forge); 9] = [
        ("provider", |account| account.provider = "another".into()),
        ("flow", |account| account.flow = Flow::AuthorizationCode),
        ("client", |account| account.client_id = Some("another".into())),
        ("no client", |account| account.client_id = None),
        ("endpoint", |account| account.discovered = Some(Box::new(discovered("https://evil.test/token")))),
        ("no endpoints", |account| account.discovered = None),
        ("issuer", |account| account.discovered.as_mut().unwrap().issuer += "/"),
        ("registered", |account| account.discovered.as_mut().unwrap().is_registered = true),
        ("another endpoint", |account| {
            let endpoints = &mut account.discovered.as_mut().unwrap().endpoints;
            endpoints.revocation = endpoints.token.clone();
        }),
    ];
    for (what, forge) in forge {
        let mut forged = account.clone();
        forge(&mut forged);
        assert!(is_damaged(&forged, &password), "{what}");
    }
}

#[test]
fn somebody_elses_tokens_do_not_send_a_secret_elsewhere() {
    let (account, [password, _]) = account();
    let mut forged = account;
    forged.discovered = Some(Box::new(discovered("https://evil.test/token")));
    // Anyone can seal to the public key.
    forged.put_tokens(&tokens("evil")).unwrap();
    assert!(is_damaged(&forged, &password));
}

#[test]
fn a_foreign_public_key_gets_no_tokens() {
    let (mut account, [password, _]) = account();
    account.public_key = seal::key_pair().1;
    account.password = None;
    account.put_tokens(&tokens("3")).unwrap();
    assert!(is_damaged(&account, &password));
}

#[test]
fn a_token_set_does_not_open_in_another_place() {
    let (mut account, [password, _]) = account();
    account.current.generation += 1;
    assert!(is_damaged(&account, &password));
    account.current.generation -= 1;
    account.current.sealed = account.password.clone().unwrap();
    assert!(is_damaged(&account, &password));
}

#[test]
fn the_properties_of_a_slot_cannot_be_changed() {
    let (account, [first, password]) = account();
    let limits = account.slots[1].limits.clone();
    let forge = |change: &dyn Fn(&mut Slot)| {
        let mut forged = account.clone();
        change(&mut forged.slots[1]);
        assert!(is_damaged(&forged, &password));
        assert!(take(&forged, &first).is_ok());
    };
    forge(&|slot| slot.name = "main".into());
    forge(&|slot| slot.created = slot.created.after(1));
    for forged in [
        Limits::default(),
        Limits { uids: Vec::new(), ..limits.clone() },
        Limits { protocols: Vec::new(), ..limits.clone() },
        Limits { uids: vec![1000, 0], ..limits.clone() },
        Limits { protocols: vec!["imap".into(), "smtp".into()], ..limits },
    ] {
        forge(&|slot| slot.limits = forged.clone());
    }
    let mut exchanged = account.clone();
    let name = std::mem::replace(&mut exchanged.slots[1].name, account.slots[0].name.clone());
    exchanged.slots[0].name = name;
    assert!(is_damaged(&exchanged, &first) && is_damaged(&exchanged, &password));
}

#[test]
fn a_record_of_another_account_or_format_is_not_read() {
    let (account, _) = account();
    let content = Entry::Account(Arc::new(account)).to_content("ann@example.test").unwrap();
    let mut record = Record { format: FORMAT, serial: 1, content };
    assert!(Entry::read("ann@example.test", &record).is_some());
    assert!(Entry::read("ben@example.test", &record).is_none());
    record.format += 1;
    assert!(Entry::read("ann@example.test", &record).is_none());
    let forgotten = Entry::Forgotten { generation: 7 }.to_content("ann@example.test").unwrap();
    assert_eq!(forgotten, br#"{"forgotten":{"generation":7}}"#);
}

#[test]
fn a_record_that_asks_for_too_much_is_not_read() {
    let (account, _) = account();
    let content = Entry::Account(Arc::new(account)).to_content("ann@example.test").unwrap();
    let content = String::from_utf8(content).unwrap();
    let read = |from: &str, to: &str| {
        assert!(content.contains(from), "{from}");
        let record = Record { format: FORMAT, serial: 1, content: content.replace(from, to).into_bytes() };
        Entry::read("ann@example.test", &record)
    };
    assert!(read("ann@example.test", "ann@example.test").is_some());
    for url in ["http://auth.example.test/token", "file:///etc/passwd", "http://127.0.0.1.evil.test/token"] {
        assert!(read("https://auth.example.test/token", url).is_none(), "{url}");
    }
    assert!(read("https://auth.example.test/token", "http://127.0.0.1:1/token").is_some());
    for (memory, passes, is_taken) in
        [(65536, 3, true), (4_000_000, 1, false), (65536, 1000, false), (262_144, 16, false)]
    {
        let stretch = format!(r#""own":{{"stretch":{{"memory":{memory},"passes":{passes}}},"#);
        assert_eq!(read(r#""own":{"#, &stretch).is_some(), is_taken, "{memory} KiB, {passes} passes");
    }
}

#[test]
fn the_number_of_chosen_passwords_is_limited() {
    let (mut account, [first, _]) = account();
    let (key, _) = account.unlock(&mut Search::new(&first)).unwrap();
    let mut add = |number: usize, password: &Password| {
        let prepared = Prepared::new(password).unwrap();
        account.add_slot(&key, &format!("slot {number}"), &prepared, Limits::default(), NOW)
    };
    for number in 0..MOST_CHOSEN {
        add(number, &Password::read(format!("chosen password {number}").as_bytes())).unwrap();
    }
    let one_more = Password::read(b"one more chosen password");
    assert!(matches!(add(MOST_CHOSEN, &one_more), Err(VaultError::TooManyChosen(_))));
    add(MOST_CHOSEN, &Password::generate()).unwrap();
    let read = Entry::read(
        "ann@example.test",
        &Record {
            format: FORMAT,
            serial: 1,
            content: Entry::Account(Arc::new(account)).to_content("ann@example.test").unwrap(),
        },
    );
    assert!(read.is_some());
}
