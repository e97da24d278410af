//! Certificates of postkey's own authority, and renewed files, with real clients.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use postkey::protocol::{Protocol, Security};

use super::ownership::{STRANGER, open_ways};
use super::support::house::{ANN, House, Program, Way, accepted, skip, until_skipping};
use super::support::skipped::skipped;
use super::support::tls;

/// A little more than the time between two checks of the certificates.
const MINUTE: Duration = Duration::from_secs(61);

/// A house whose listeners have certificates of postkey's own authority, with more lines for each of them.
async fn own_house(more: &str) -> House {
    let own = format!("certificate = \"own\"\n{more}\n");
    House::furnished(Security::Tls, |config| config.replace("certificate = \"cert.pem\"\nkey = \"key.pem\"\n", &own))
        .await
}

/// Writes what `postkey certificate --pem` prints to a file, as a person does.
fn export(house: &House) -> String {
    let printed = house.run(&["certificate", "--pem"], "");
    assert_eq!(printed.code, Some(0), "{}", printed.err);
    let file = house.folder.path().join("postkey.crt");
    std::fs::write(&file, printed.out).unwrap();
    file.to_str().unwrap().to_owned()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    // It ends by itself when its input does, or after some seconds.
    let output =
        Command::new("timeout").arg("20").arg(program).args(arguments).stdin(std::process::Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Whether OpenSSL accepts what a port shows, for this name or address.
fn openssl_accepts(port: u16, authority: &str, more: &[&str]) -> bool {
    let port = format!("127.0.0.1:{port}");
    let all = ["s_client", "-connect", &port, "-CAfile", authority, "-verify_return_error", "-x509_strict"];
    run("openssl", &[&all, more].concat()).status.success()
}

/// The certificate that a port shows, PEM without line ends.
async fn shown(port: u16) -> String {
    let port = format!("127.0.0.1:{port}");
    let output = tokio::task::spawn_blocking(move || run("openssl", &["s_client", "-connect", &port])).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text.find("-----BEGIN").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    joined(&text[begin..text.find("-----END").unwrap()])
}

/// The first certificate in a PEM file without line ends, as [`shown`] returns it.
fn joined(pem: &str) -> String {
    pem.split("-----END").next().unwrap().split_whitespace().collect()
}

#[tokio::test]
async fn real_clients_that_have_imported_the_authority_connect_by_every_name() {
    let mut house = own_house("names = [\"mail.home.example\"]").await;
    let before = house.run(&["certificate"], "");
    assert!(before.code == Some(69) && before.err.contains("postkey creates it when it starts"), "{}", before.err);
    let _process = house.serve().await;
    let authority = export(&house);
    let (imap, smtp) = (house.port(Protocol::Imap, Security::Tls), house.port(Protocol::Smtp, Security::StartTls));
    for name in ["localhost", "mail.home.example"] {
        assert!(openssl_accepts(imap, &authority, &["-verify_hostname", name]), "{name}");
    }
    assert!(openssl_accepts(imap, &authority, &["-verify_ip", "127.0.0.1"]));
    assert!(openssl_accepts(smtp, &authority, &["-starttls", "smtp", "-verify_hostname", "localhost"]));
    assert!(!openssl_accepts(imap, &authority, &["-verify_hostname", "www.example.com"]));
    assert!(!openssl_accepts(imap, house.folder.path().join("cert.pem").to_str().unwrap(), &[]), "another authority");
    let curl = run("curl", &["-sS", "--cacert", &authority, &format!("imaps://localhost:{imap}/"), "-X", "CAPABILITY"]);
    assert!(curl.status.success(), "{}", String::from_utf8_lossy(&curl.stderr));
    let script = format!(
        "import imaplib, smtplib, ssl\n\
         context = ssl.create_default_context(cafile='{authority}')\n\
         context.verify_flags |= ssl.VERIFY_X509_STRICT\n\
         imaplib.IMAP4_SSL('127.0.0.1', {imap}, ssl_context=context).logout()\n\
         smtp = smtplib.SMTP('localhost', {smtp})\n\
         smtp.starttls(context=context)\n\
         smtp.quit()\n"
    );
    let python = run("python3", &["-c", &script]);
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
}

#[tokio::test]
async fn the_authority_stays_the_same_and_its_certificate_shows_what_a_person_needs() {
    let mut house = own_house("").await;
    let process = house.serve().await;
    let shown = house.run(&["certificate"], "").out;
    let authority = export(&house);
    let fingerprint = run("openssl", &["x509", "-in", &authority, "-noout", "-fingerprint", "-sha256"]).stdout;
    let fingerprint = String::from_utf8(fingerprint).unwrap().trim().rsplit('=').next().unwrap().to_owned();
    assert!(shown.contains(&fingerprint) && shown.contains("localhost, 127.0.0.1"), "{shown}");
    for program in ["Android", "iPhone", "macOS", "Windows", "Thunderbird", "Debian", "Scanners"] {
        assert!(shown.contains(program), "{program}");
    }
    let der = Command::new(env!("CARGO_BIN_EXE_postkey"))
        .args(["--config", house.file.to_str().unwrap(), "certificate", "--der"])
        .output()
        .unwrap();
    let exported = postkey::certificates::certificate_authority_der(&house.config);
    assert_eq!(exported.as_deref(), Some(der.stdout.as_slice()), "what a profile for iOS contains");
    process.terminate();
    let _again = house.serve().await;
    assert_eq!(house.run(&["certificate"], "").out, shown, "after a restart");
}

#[tokio::test]
async fn a_certificate_forged_with_the_stored_key_is_refused_by_clients() {
    let mut house = own_house("").await;
    let _process = house.serve().await;
    let authority = export(&house);
    let folder = house.folder.path().to_str().unwrap().to_owned();
    // The thief has the state folder: the authority's two certificates and the issuer's key.
    let stolen = std::fs::read_to_string(house.config.state_dir.join("authority/authority.pem")).unwrap();
    let blocks: Vec<&str> = stolen.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let [root, issuer, key] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    let write = |name: &str, text: &str| std::fs::write(Path::new(&folder).join(name), text).unwrap();
    write("issuer.crt", issuer);
    write("issuer.key", key);
    write("root.crt", root);
    for (name, is_accepted) in
        [("DNS:pi.local", true), ("IP:192.168.7.7", true), ("DNS:www.bank.example", false), ("IP:8.8.8.8", false)]
    {
        write(
            "extensions",
            &format!("subjectAltName={name}\nextendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\n"),
        );
        let script = format!(
            "cd {folder} && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout x.key -subj /CN=x -out x.csr \
             && openssl x509 -req -in x.csr -CA issuer.crt -CAkey issuer.key -days 30 -extfile extensions -out x.crt"
        );
        let forged = run("sh", &["-c", &script]);
        assert!(forged.status.success(), "{}", String::from_utf8_lossy(&forged.stderr));
        let at = |name: &str| format!("{folder}/{name}");
        let verified =
            run("openssl", &["verify", "-CAfile", &authority, "-untrusted", &at("issuer.crt"), &at("x.crt")]);
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert_eq!(verified.status.success(), is_accepted, "{name}: {said}");
        assert!(is_accepted || said.contains("permitted subtree violation"), "{name}: {said}");
        // A client that takes a root for a name and a key still has the limits of the issuer.
        let partial = ["verify", "-partial_chain", "-trusted", &at("issuer.crt"), &at("x.crt")];
        assert_eq!(run("openssl", &partial).status.success(), is_accepted, "{name}");
    }
    // The key signs no authority below, which could have other limits.
    let is_rootkey = run(
        "sh",
        &[
            "-c",
            &format!(
                "cd {folder} && [ \"$(openssl x509 -in root.crt -noout -pubkey)\" = \"$(openssl pkey -in issuer.key -pubout)\" ]"
            ),
        ],
    );
    assert!(!is_rootkey.status.success(), "the root's key is not stored");
}

#[tokio::test]
async fn check_and_doctor_tell_what_the_certificate_is_for_and_lacks() {
    let mut house = own_house("").await;
    let _process = house.serve().await;
    let later = std::fs::read_to_string(&house.file).unwrap();
    let later = later.replacen("certificate = \"own\"", "certificate = \"own\"\nnames = \"mail.home.example\"", 1);
    std::fs::write(&house.file, later).unwrap();
    let checked = house.run(&["check"], "");
    assert!(checked.out.contains("own authority, for localhost, mail.home.example, 127.0.0.1"), "{}", checked.out);
    assert!(checked.err.contains("may not sign for mail.home.example"), "{}", checked.err);
    let examined = house.run_beside(&["doctor", ANN], "").await;
    assert!(
        examined.out.contains("ok       certificate own: it is for localhost, 127.0.0.1, and valid until"),
        "{}",
        examined.out
    );
    std::fs::write(house.config.state_dir.join("authority/authority.pem"), "x").unwrap();
    let examined = house.run_beside(&["doctor", ANN], "").await.out;
    assert!(
        examined.contains("problem  certificate own: ") && examined.contains("is damaged; restore it"),
        "{examined}"
    );
}

#[tokio::test]
async fn a_damaged_authority_is_an_error_and_nothing_is_replaced() {
    let mut house = own_house("").await;
    house.serve().await.terminate();
    let file = house.config.state_dir.join("authority/authority.pem");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    for arguments in [&[][..], &["certificate"]] {
        let ended = house.run(arguments, "");
        assert!(ended.code == Some(74) && ended.err.contains("is damaged; restore it from a backup"), "{}", ended.err);
    }
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn a_user_without_rights_is_told_who_may_show_the_certificate() {
    let mut house = own_house("").await;
    house.serve().await.terminate();
    open_ways(&house);
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can run a command as another user");
    }
    let own = house.begin_as(STRANGER, &["certificate"], &[]).end();
    assert!(own.code == Some(74) && own.err.contains("; run postkey as root, or as the user that owns"), "{}", own.err);
    std::fs::set_permissions(&house.file, Permissions::from_mode(0o600)).unwrap();
    let own = house.begin_as(STRANGER, &["certificate"], &[]).end();
    assert!(
        own.code == Some(78) && own.err.contains("; run postkey as root, or as a user that may read"),
        "{}",
        own.err
    );
}

/// A session that logs in now, to see later that it goes on.
async fn session(house: &House) -> Program {
    let mut session = house.program(Protocol::Imap, Security::Tls).await;
    let reply = session.log_in(Way::Plain, ANN, &house.password).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
    session
}

#[tokio::test]
async fn renewed_files_are_used_for_new_connections_while_a_session_continues() {
    let house = House::open().await;
    let (mut session, port) = (session(&house).await, house.port(Protocol::Imap, Security::Tls));
    let before = joined(&house.identity.certificate_pem);
    let renewed = tls::identity();
    assert_eq!(shown(port).await, before);
    std::fs::write(house.folder.path().join("cert.pem"), &renewed.certificate_pem).unwrap();
    for _ in 0..2 {
        skip(MINUTE).await;
        assert_eq!(shown(port).await, before, "its key has not been written yet");
    }
    std::fs::write(house.folder.path().join("key.pem"), &renewed.key_pem).unwrap();
    until_skipping("the new certificate", MINUTE, async || shown(port).await == joined(&renewed.certificate_pem)).await;
    session.prove().await;
}

#[tokio::test]
async fn postkey_renews_its_own_certificate_while_a_session_continues() {
    let mut house = own_house("").await;
    house.set_clock();
    house.start().await;
    let root = postkey::certificates::certificate_authority_der(&house.config).unwrap();
    house.identity.trust(root.into());
    let (mut session, port) = (session(&house).await, house.port(Protocol::Imap, Security::Tls));
    let before = shown(port).await;
    house.pass(59 * 24 * 3600);
    skip(MINUTE).await;
    assert_eq!(shown(port).await, before, "it is not time yet");
    house.pass(24 * 3600);
    until_skipping("the renewal", MINUTE, async || shown(port).await != before).await;
    session.prove().await;
}

/// The same in the daemon itself, which Landlock lets write to its state folder only. Its machine gets another name.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_confined_daemon_stores_the_certificate_that_it_renews() {
    let mut house = own_house("").await;
    let text = std::fs::read_to_string(&house.file).unwrap();
    let (here, everywhere) =
        ("127.0.0.1:0\"\nsecurity = \"tls\"", "0.0.0.0:0\"\nallow_remote = true\nsecurity = \"tls\"");
    let text = text.replace(here, everywhere);
    std::fs::write(&house.file, format!("log_file = \"state/log\"\n{text}")).unwrap();
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can name a machine of its own");
    }
    let daemon = house.serve_by("exec unshare --uts \"$0\" \"$@\"").await;
    let log = || std::fs::read_to_string(house.config.state_dir.join("log")).unwrap();
    if log().contains("not confined") {
        return skipped("this kernel has no Landlock");
    }
    let (port, stored) =
        (house.port(Protocol::Imap, Security::Tls), house.config.state_dir.join("authority/listeners.pem"));
    let before = shown(port).await;
    let named = run("nsenter", &["--uts", "--target", &daemon.id().to_string(), "hostname", "renamed.internal"]);
    assert!(named.status.success(), "{named:?}");
    let deadline = std::time::Instant::now() + 2 * MINUTE;
    while shown(port).await == before {
        assert!(std::time::Instant::now() < deadline, "not renewed: {}", log());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(joined(&std::fs::read_to_string(&stored).unwrap()), shown(port).await, "{}", log());
    assert!(openssl_accepts(port, &export(&house), &["-verify_hostname", "renamed.internal"]));
    daemon.terminate();
}
