//! The vault from its users' point of view.

use std::time::Duration;

use super::record::{FORMAT, Record};
use super::*;
use crate::config::flow::Flow;
use crate::secret::{Secret, Token};
use crate::token::Life;

const ANN: &str = "ann@example.test";
const NOW: Moment = Moment(1_000_000);

fn tokens(name: &str) -> TokenSet {
    TokenSet {
        access: Token::parse(&format!("access-{name}")).unwrap(),
        refresh: Token::parse(&format!("refresh-{name}")),
        life: Life { issued: NOW, expires: NOW.after(3600) },
        scope: "mail".into(),
    }
}

fn authorization(name: &str) -> Authorization {
    Authorization {
        address: ANN.into(),
        provider: "test".into(),
        flow: Flow::AuthorizationCode,
        client_id: None,
        secrets: Secrets { client_secret: Some(Secret::new(b"client-secret".to_vec())), grant_secret: None },
        discovered: None,
        tokens: tokens(name),
    }
}

/// A vault with one account, whose only app password is returned.
fn vault(dir: &Path) -> (Vault, Password) {
    let vault = Vault::open(&dir.join("state")).unwrap();
    let password = Password::generate();
    vault.authorize(&authorization("1"), Some(("main", &password)), NOW).unwrap();
    (vault, password)
}

fn access(unlocked: &Unlocked) -> &str {
    unlocked.tokens.access.expose()
}

#[test]
fn stored_tokens_and_secrets_open_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (first, password) = vault(dir.path());
    assert_eq!(first.keep(ANN, 1, &tokens("2")).unwrap(), 2);
    drop(first);
    let again = Vault::open(&dir.path().join("state")).unwrap();
    let unlocked = again.unlock(ANN, &password).unwrap();
    assert_eq!((access(&unlocked), unlocked.generation), ("access-2", 2));
    assert_eq!(unlocked.tokens.refresh.unwrap().expose(), "refresh-2");
    assert_eq!(unlocked.secrets.client_secret.unwrap().expose(), b"client-secret");
}

#[test]
fn a_wrong_password_and_an_unknown_account_get_one_answer_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, password) = vault(dir.path());
    let before = vault.export(ANN).unwrap();
    for (address, password) in
        [(ANN, Password::generate()), (ANN, Password::read(b"guess")), ("bob@example.test", password.clone())]
    {
        assert!(matches!(vault.unlock(address, &password), Err(VaultError::WrongCredentials)));
    }
    assert_eq!(vault.export(ANN).unwrap(), before);
    assert!(vault.unlock(ANN, &password).is_ok());
}

#[test]
fn a_second_authorization_keeps_the_slots_and_needs_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, password) = vault(dir.path());
    vault.end(ANN, 1, Ended { at: NOW, why: "revoked".into() }).unwrap();
    vault.authorize(&authorization("new"), None, NOW).unwrap();
    assert_eq!(access(&vault.unlock(ANN, &password).unwrap()), "access-new");
    assert!(vault.account(ANN).unwrap().ended.is_none());
}

#[test]
fn each_slot_opens_the_account_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, first) = vault(dir.path());
    let chosen = Password::read(b"correct horse battery staple");
    let add = |password, name| vault.add_slot(ANN, password, name, &chosen, Limits::default(), NOW);
    let wrong = Password::generate();
    assert!(matches!(add(&wrong, "mutt"), Err(VaultError::WrongCredentials)));
    add(&first, "mutt").unwrap();
    assert!(matches!(add(&first, "mutt"), Err(VaultError::SlotExists(_))));
    assert!(vault.unlock(ANN, &first).is_ok() && vault.unlock(ANN, &chosen).is_ok());
    vault.remove_slot(ANN, "main").unwrap();
    assert!(vault.unlock(ANN, &first).is_err() && vault.unlock(ANN, &chosen).is_ok());
    assert!(matches!(vault.remove_slot(ANN, "mutt"), Err(VaultError::LastSlot(_))));
    vault.forget(ANN).unwrap();
    assert!(matches!(vault.unlock(ANN, &chosen), Err(VaultError::WrongCredentials)));
}

#[test]
fn a_chosen_password_opens_its_slot_in_every_encoding_of_its_letters() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, first) = vault(dir.path());
    let add = |name, new: &Password| vault.add_slot(ANN, &first, name, new, Limits::default(), NOW).unwrap();
    let apart = "ne\u{301}e\u{a0}dansk o\u{308}l".as_bytes();
    add("new", &Password::chosen(apart).unwrap());
    for typed in ["née dansk öl".as_bytes(), apart, b"n\xe9e dansk \xf6l"] {
        assert!(vault.unlock(ANN, &Password::read(typed)).is_ok());
    }
    vault.remove_slot(ANN, "new").unwrap();
    add("from before passwords were prepared", &Password::read(apart));
    assert!(vault.unlock(ANN, &Password::read(apart)).is_ok());
}

#[test]
fn the_files_contain_no_secret_and_others_cannot_read_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (vault, password) = vault(dir.path());
    drop(vault);
    let secrets = [b"access-1".to_vec(), b"refresh-1".to_vec(), b"client-secret".to_vec(), password.expose()];
    for entry in std::fs::read_dir(dir.path().join("state/sled")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { continue };
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_slice()), "{}", path.display());
        }
    }
    let mode = std::fs::metadata(dir.path().join("state")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path().join("state"), open_to_all).unwrap();
    assert!(matches!(Vault::open(&dir.path().join("state")), Err(VaultError::Store(StoreError::Exposed(_)))));
}

#[test]
fn the_vault_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (_vault, _) = vault(dir.path());
    let second = Vault::open(&dir.path().join("state"));
    assert!(matches!(second, Err(VaultError::Store(StoreError::InUse(_)))));
}

#[test]
fn a_lost_record_is_not_lost_after_a_new_write() {
    let dir = tempfile::tempdir().unwrap();
    let copies = dir.path().join("copies");
    files::make_folder(&copies).unwrap();
    for address in [ANN, "ben@example.test"] {
        files::write(&copies.join(address), &copies.join("draft"), b"damaged", std::fs::File::sync_all).unwrap();
    }
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut records = records::Records::open(dir.path()).unwrap();
    assert_eq!(records.lost(), [ANN, "ben@example.test"]);
    records.put(ANN, Entry::Forgotten { generation: 0 }, 0, Purpose::Replace).unwrap();
    assert_eq!(records.lost(), ["ben@example.test"]);
}

/// Figures for docs/design/decisions/0005-second-copy.md: `cargo test --lib -- --ignored --nocapture cost_of`
#[test]
#[ignore = "prints figures"]
fn cost_of_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = vault(dir.path());
    let record = vault.export(ANN).unwrap();
    drop(vault);
    let time = |what: &str, write: &dyn Fn()| {
        let mut times: Vec<Duration> = (0..300)
            .map(|_| {
                let start = std::time::Instant::now();
                write();
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{what}: median {:?}, 99 of 100 below {:?}, {} bytes", times[150], times[296], record.len());
    };
    let store =
        store::Store::create(&dir.path().join("state"), std::iter::empty::<(&str, _)>(), store::Aside::Keep).unwrap();
    let copies = copies::Copies::new(&dir.path().join("state"));
    time("sled alone", &|| store.put(ANN, &record).unwrap());
    time("copy alone", &|| copies.put(ANN, &record).unwrap());
    time("both", &|| {
        copies.put(ANN, &record).unwrap();
        store.put(ANN, &record).unwrap();
    });
}

/// How many derivations it takes to refuse a password.
fn work(vault: &Vault, address: &str, wrong: &Password) -> u32 {
    let before = seal::tests::DERIVED.get();
    assert!(matches!(vault.unlock(address, wrong), Err(VaultError::WrongCredentials)));
    seal::tests::DERIVED.get() - before
}

#[test]
fn an_unknown_account_and_a_wrong_password_take_the_same_work() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, right) = vault(dir.path());
    let composed = Password::read("wrong ho\u{308}rse".as_bytes());
    for wrong in [Password::generate(), Password::read(b"wrong horse"), composed] {
        assert_eq!((work(&vault, ANN, &wrong), work(&vault, "nobody@example.test", &wrong)), (1, 1));
    }
    // The more of them one account has, the more a wrong password costs in every account.
    let generated = Password::generate().expose();
    let four =
        [("one", &b"correct horse"[..]), ("two", b"correct cow"), ("three", b"correct goat"), ("four", &generated)];
    for (name, new) in four {
        vault.add_slot(ANN, &right, name, &Password::read(new), Limits::default(), NOW).unwrap();
    }
    let ben = Authorization { address: "ben@example.test".into(), ..authorization("1") };
    vault.authorize(&ben, Some(("main", &Password::generate())), NOW).unwrap();
    for (wrong, most) in [(Password::generate(), 2), (Password::read(b"wrong horse"), 3)] {
        for address in [ANN, "ben@example.test", "nobody@example.test"] {
            assert_eq!(work(&vault, address, &wrong), most, "{address}");
        }
    }
    let before = seal::tests::DERIVED.get();
    vault.unlock(ANN, &right).unwrap();
    assert_eq!(seal::tests::DERIVED.get() - before, 1, "however many slots come after it");
}

/// All slots of format 1 share a salt, and take one derivation for each form of what was typed.
#[test]
fn an_unknown_account_takes_the_same_work_as_slots_of_format_1() {
    const FAY: &str = "fay@example.test";
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let copies = dir.path().join("copies");
    files::make_folder(&copies).unwrap();
    let record = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vault/format-1").join(FAY)).unwrap();
    files::write(&copies.join(FAY), &copies.join("draft"), &record, std::fs::File::sync_all).unwrap();
    let vault = Vault::open(dir.path()).unwrap();
    let forms = ["00000-00000-00000-00000-000000", "wrong horse", "wrong ho\u{308}rse"];
    let works = |address| forms.map(|wrong| work(&vault, address, &Password::read(wrong.as_bytes())));
    assert_eq!((works(FAY), works("nobody@example.test")), ([1, 1, 2], [1, 1, 2]));
    vault.renew(FAY, &Password::read(b"correct horse battery staple")).unwrap();
    assert_eq!((works(FAY), works("nobody@example.test")), ([1, 2, 3], [1, 2, 3]));
    vault.renew(FAY, &Password::read(b"abcde-fghjk-mnpqr-stvwx-yz2345")).unwrap();
    assert_eq!((works(FAY), works("nobody@example.test")), ([2, 2, 3], [2, 2, 3]));
}

/// Welch's t of the two, as dudect computes it: below 4.5 there is no visible difference. On one core, and optimized:
/// `taskset -c 1 cargo test --release --lib -- --ignored --nocapture the_time_of`.
#[test]
#[ignore = "a measurement, which is only useful on an idle machine"]
fn the_time_of_an_unknown_account_and_of_a_wrong_password() {
    const SAMPLES: u32 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (vault, _right) = vault(dir.path());
    let wrong = Password::generate();
    let mut classes = [Vec::new(), Vec::new()];
    for sample in 0..SAMPLES {
        // A random order favours neither of them.
        let class = usize::from(crate::random::bytes::<1>()[0] & 1);
        let address = if class == 0 { ANN } else { "eve@example.test" };
        let begun = std::time::Instant::now();
        let _wrong = vault.unlock(address, &wrong);
        if sample > 1000 {
            classes[class].push(begun.elapsed().as_secs_f64());
        }
    }
    classes.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    println!("p = {:.2} that both are one distribution", same_distribution(&classes[0], &classes[1]));
    // The slowest tenth is noise of the machine.
    let [a, b] = classes.map(|times| {
        let times = &times[..times.len() * 9 / 10];
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    println!("wrong password {:.0} ns, unknown account {:.0} ns", a.0 * 1e9, b.0 * 1e9);
    println!("t = {:.2}", (a.0 - b.0) / (a.1 + b.1).sqrt());
}

/// The p of Kolmogorov and Smirnov, for two sorted samples of many values each.
fn same_distribution(a: &[f64], b: &[f64]) -> f64 {
    let [count_a, count_b] = [a, b].map(|sample| sample.len() as f64);
    let below = |sample: &[f64], value: f64| sample.partition_point(|other| *other <= value) as f64;
    let apart = |value: &f64| (below(a, *value) / count_a - below(b, *value) / count_b).abs();
    let most = a.iter().chain(b).map(apart).fold(0.0, f64::max);
    (2.0 * (-2.0 * most.powi(2) * count_a * count_b / (count_a + count_b)).exp()).min(1.0)
}

/// An earlier version could not create a file for such an account.
#[test]
fn an_account_with_a_long_address_heals_and_can_be_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let address = format!("{}@example.test", "/".repeat(100));
    let (elsewhere, password) = (Vault::open(&dir.path().join("elsewhere")).unwrap(), Password::generate());
    let long = Authorization { address: address.clone(), ..authorization("1") };
    elsewhere.authorize(&long, Some(("main", &password)), NOW).unwrap();
    let exported = elsewhere.export(&address).unwrap();
    let record = Record { format: 1, ..Record::read(&address, &exported).unwrap() };
    files::make_folder(&state).unwrap();
    let found = [(&address, record.to_bytes(&address))];
    drop(store::Store::create(&state, found.into_iter(), store::Aside::Keep).unwrap());
    for _ in 0..2 {
        let vault = Vault::open(&state).unwrap();
        assert!(vault.trouble().is_none() && vault.damaged().is_empty());
        assert!(!vault.account(&address).unwrap().doubtful);
        assert!(vault.unlock(&address, &password).is_ok());
    }
    let vault = Vault::open(&state).unwrap();
    assert_eq!(vault.restore(&address, &exported, true).unwrap(), Restored::Same);
    vault.forget(&address).unwrap();
    assert!(vault.trouble().is_none() && vault.account(&address).is_none());
    assert_eq!(vault.restore(&address, &exported, true).unwrap(), Restored::Done);
    drop(vault);
    assert!(Vault::open(&state).unwrap().unlock(&address, &password).is_ok());
}

#[test]
fn a_record_under_something_that_is_not_an_address_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, password) = vault(dir.path());
    for address in ["ann", "@example.test", "a\nb@example.test", &format!("{}@example.test", "a".repeat(300))] {
        let odd = Authorization { address: address.into(), ..authorization("1") };
        let prepared = Prepared::new(&password).unwrap();
        let first = Some(("main", &prepared));
        let account = StoredAccount::begin(&odd, first, 0, NOW).unwrap();
        let content = Entry::Account(Arc::new(account)).to_content(address).unwrap();
        let exported = Record { format: FORMAT, serial: 1, content }.to_bytes(address);
        assert!(matches!(vault.restore(address, &exported, true), Err(VaultError::NotAnAccount(_))), "{address:?}");
    }
}
