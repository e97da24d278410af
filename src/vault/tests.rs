//! The vault as its users see it.

use super::*;
use crate::secret::Token;
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
        secrets: Secrets { client_secret: Some(Secret::new(b"client-secret".to_vec())), password: None },
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
fn what_was_put_in_comes_out_after_a_restart() {
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
fn a_wrong_password_and_an_unknown_account_are_one_answer_and_change_nothing() {
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
fn authorizing_anew_keeps_the_slots_and_needs_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, password) = vault(dir.path());
    vault.end(ANN, 1, Ended { at: NOW, why: "revoked".into() }).unwrap();
    vault.authorize(&authorization("new"), None, NOW).unwrap();
    assert_eq!(access(&vault.unlock(ANN, &password).unwrap()), "access-new");
    assert!(vault.account(ANN).unwrap().ended.is_none());
}

#[test]
fn the_token_set_before_is_kept_until_the_new_one_has_worked() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, _) = vault(dir.path());
    vault.keep(ANN, 1, &tokens("2")).unwrap();
    vault.settle(ANN, 1).unwrap();
    assert!(vault.is_unsettled(ANN, 2), "only the current generation settles");
    vault.settle(ANN, 2).unwrap();
    assert!(!vault.is_unsettled(ANN, 2));
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
fn no_secret_lies_in_the_files_and_nobody_else_reads_them() {
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
    let store = store::Store::make(&dir.path().join("state"), &records::Found::new()).unwrap();
    let copies = copies::Copies::new(&dir.path().join("state"));
    time("sled alone", &|| store.put(ANN, &record).unwrap());
    time("copy alone", &|| copies.put(ANN, &record).unwrap());
    time("both", &|| {
        copies.put(ANN, &record).unwrap();
        store.put(ANN, &record).unwrap();
    });
}

/// Deliberately one answer in words; these two, that it is one in time as well.
#[test]
fn an_unknown_account_and_a_wrong_password_take_the_same_work() {
    let dir = tempfile::tempdir().unwrap();
    let (vault, right) = vault(dir.path());
    let work = |address: &str, password: &Password| {
        let before = seal::tests::DERIVED.get();
        assert!(matches!(vault.unlock(address, password), Err(VaultError::WrongCredentials)));
        seal::tests::DERIVED.get() - before
    };
    for wrong in [Password::generate(), Password::read(b"wrong horse")] {
        assert_eq!((work(ANN, &wrong), work("nobody@example.test", &wrong)), (1, 1));
    }
    let before = seal::tests::DERIVED.get();
    vault.unlock(ANN, &right).unwrap();
    assert_eq!(seal::tests::DERIVED.get() - before, 1, "however many slots there are");
}

/// Welch's t of the two, as dudect does it: below 4.5 there is nothing to see. On one core, and optimized:
/// `taskset -c 1 cargo test --release --lib -- --ignored --nocapture the_time_of`.
#[test]
#[ignore = "a measurement, and of use on a quiet machine only"]
fn the_time_of_an_unknown_account_and_of_a_wrong_password() {
    const SAMPLES: u32 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (vault, _right) = vault(dir.path());
    let wrong = Password::generate();
    let mut classes = [Vec::new(), Vec::new()];
    for sample in 0..SAMPLES {
        // Neither order nor neighbours are to favour one of them.
        let class = usize::from(random::<1>()[0] & 1);
        let address = if class == 0 { ANN } else { "eve@example.test" };
        let begun = std::time::Instant::now();
        let _wrong = vault.unlock(address, &wrong);
        if sample > 1000 {
            classes[class].push(begun.elapsed().as_secs_f64());
        }
    }
    classes.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    println!("p = {:.2} that both are one distribution", same_distribution(&classes[0], &classes[1]));
    // The slowest tenth is the machine's.
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
