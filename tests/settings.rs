//! Programs read the user name and the password out of their settings as postkey was given them. tests/real sends mail
//! with more of them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const USER: &str = "o'b$home+{x}#%s@example.test";
const PASSWORD: &str = r#"1 a"b\c'd #e$HOME %s ^!`;:,= &|<>*?~@[]()/\x41 \u0041 {g} "#;

/// What `postkey settings` prints for a program.
fn run_settings(folder: &Path, program: &str, password: Option<&str>) -> String {
    let file = folder.join("postkey.toml");
    std::fs::write(&file, "state_dir = \"state\"\n").unwrap();
    let mut command = vec!["settings", USER, "--for", program, "--config", file.to_str().unwrap()];
    command.extend(password.map(|_| "--password-stdin"));
    let input = password.map(|password| format!("{password}\n"));
    run(env!("CARGO_BIN_EXE_postkey"), &command, folder, &input.unwrap_or_default())
}

/// Runs a program until its end, and returns what it prints.
fn run(program: &str, arguments: &[&str], folder: &Path, input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("HOME", folder).env("LANG", "C.UTF-8");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `code` with the settings of a program in a file, and checks that it prints the user name and the password.
fn check(program: &str, password: &str, read: impl Fn(&Path, &str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let text = run_settings(folder.path(), program, Some(password));
    let printed = read(folder.path(), &text);
    assert_eq!(printed.trim_end_matches('\n'), format!("{USER}\n{password}"), "{program}:\n{text}");
}

#[test]
fn git_reads_its_settings() {
    check("git-send-email", &format!("{PASSWORD}ü"), |folder, text| {
        std::fs::write(folder.join(".gitconfig"), text).unwrap();
        let value = |key| run("git", &["config", "--file", ".gitconfig", key], folder, "");
        value("sendemail.smtpUser") + &value("sendemail.smtpPass")
    });
}

#[test]
#[ignore = "needs node, which tests/run installs"]
fn node_reads_its_settings() {
    check("node", &format!("{PASSWORD}ü😀"), |folder, text| {
        let code = format!(
            "const parts = [];
            const required = {{createTransport: it => parts.push(it.auth), ImapFlow: class {{ constructor(it) {{ parts.push(it.auth) }} }}}};
            (require => {{ {text} }})(() => required);
            const [smtp, imap] = parts.map(it => it.user + '\\n' + it.pass);
            console.log(smtp === imap ? smtp : 'they differ');"
        );
        std::fs::write(folder.join("read.js"), code).unwrap();
        run("node", &["read.js"], folder, "")
    });
}

#[test]
#[ignore = "needs PHP, which tests/run installs"]
fn php_reads_its_settings() {
    check("php", &format!("{PASSWORD}ü"), |folder, text| {
        let mailer =
            "class PHPMailer { public $Host, $Port, $SMTPAuth, $Username, $Password, $SMTPSecure, $SMTPAutoTLS;
                      function isSMTP() {} }";
        let code = format!(
            "<?php namespace PHPMailer\\PHPMailer {{ {mailer} }}\nnamespace {{\n{text}\necho \"$mail->Username\\n$mail->Password\";\n}}"
        );
        std::fs::write(folder.join("read.php"), code).unwrap();
        run("php", &["read.php"], folder, "")
    });
}

#[test]
#[ignore = "needs Emacs, which tests/run installs"]
fn emacs_reads_its_settings() {
    // Its file has no way to quote both kinds of quotes.
    check("emacs", &PASSWORD.replace('\'', ""), |folder, text| {
        let authinfo: String =
            text.lines().filter_map(|line| line.strip_prefix(";; m")).map(|it| format!("m{it}\n")).collect();
        std::fs::write(folder.join("authinfo"), authinfo).unwrap();
        let code = "
            (require 'auth-source) (require 'smtpmail) (require 'gnus)
            (setq auth-sources '(\"authinfo\"))
            (let ((found (car (auth-source-search :host smtpmail-smtp-server :port smtpmail-smtp-service :user smtpmail-smtp-user)))
                  (imap (car (auth-source-search :host (cadr gnus-select-method) :port 1143))))
              (unless (and (equal (plist-get imap :user) (cadr (assq 'nnimap-user gnus-select-method)))
                           (equal (funcall (plist-get found :secret)) (funcall (plist-get imap :secret))))
                (error \"IMAP differs\"))
              (princ (format \"%s\\n%s\" (plist-get found :user) (funcall (plist-get found :secret)))))";
        std::fs::write(folder.join("settings.el"), format!("{text}{code}")).unwrap();
        run("emacs", &["--batch", "--quick", "--load", "settings.el"], folder, "")
    });
}

/// Runs Python with `text` in `file`.
fn python(folder: &Path, text: &str, code: &str) -> String {
    std::fs::write(folder.join("file"), text).unwrap();
    std::fs::write(folder.join("read.py"), code).unwrap();
    run("python3", &["read.py"], folder, "")
}

#[test]
#[ignore = "needs Python, which tests/run installs"]
fn a_profile_of_apple_is_a_property_list() {
    let code = "
import plistlib
mail = plistlib.load(open('file', 'rb'))['PayloadContent'][0]
assert mail['EmailAddress'] == mail['OutgoingMailServerUsername'] == mail['IncomingMailServerUsername']
assert mail['IncomingPassword'] == mail['OutgoingPassword'] and mail['IncomingMailServerPortNumber'] == 1143
assert mail['OutgoingMailServerPortNumber'] == 1587 and mail['IncomingMailServerUseSSL'] is False
print(mail['EmailAddress'], mail['IncomingPassword'], sep='\\n')";
    check("apple-profile", &format!("{PASSWORD}ü]]>"), |folder, text| python(folder, text, code));
    let folder = tempfile::tempdir().unwrap();
    let without = run_settings(folder.path(), "apple-profile", None);
    assert!(!without.contains("Password</key><string>") && !without.contains("APP-PASSWORD"), "{without}");
    assert_eq!(without, run_settings(folder.path(), "apple-profile", None), "a device replaces what it has");
}

/// The shape is that of <https://wiki.mozilla.org/Thunderbird:Autoconfiguration:ConfigFileFormat> and of MS-OXDSCLI.
#[test]
#[ignore = "needs Python, which tests/run installs"]
fn the_files_of_autoconfiguration_are_xml() {
    let folder = tempfile::tempdir().unwrap();
    let code = "
import xml.etree.ElementTree as tree
provider = tree.parse('file').getroot().find('emailProvider')
for server in provider.findall('incomingServer') + provider.findall('outgoingServer'):
    print(server.get('type'), *(field.text for field in server))
print(provider.get('id'), provider.find('domain').text)";
    let text = run_settings(folder.path(), "autoconfig", None);
    let login = "plain %EMAILADDRESS% password-cleartext";
    let expected = format!(
        "imap 127.0.0.1 1143 {login}\npop3 127.0.0.1 1110 {login}\nsmtp 127.0.0.1 1587 {login}\nexample.test example.test\n"
    );
    assert_eq!(python(folder.path(), &text, code), expected);
    let code = "
import xml.etree.ElementTree as tree
space = '{http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a}'
account = tree.parse('file').getroot().find(space + 'Response').find(space + 'Account')
for protocol in account.findall(space + 'Protocol'):
    print(*(protocol.find(space + name).text for name in ('Type', 'Server', 'Port', 'LoginName', 'SSL', 'Encryption')))";
    let text = run_settings(folder.path(), "autodiscover", None);
    let line = |protocol, port| format!("{protocol} 127.0.0.1 {port} {USER} off None\n");
    assert_eq!(python(folder.path(), &text, code), line("IMAP", 1143) + &line("POP3", 1110) + &line("SMTP", 1587));
}

#[test]
#[ignore = "needs openssl, which tests/run installs"]
fn a_profile_of_apple_can_be_signed_as_the_guide_says() {
    let guide = include_str!("../docs/guide/mail-programs.md");
    let command = guide.lines().find(|line| line.starts_with("openssl cms -sign")).expect("the command");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("postkey.mobileconfig"), run_settings(folder.path(), "apple-profile", None))
        .unwrap();
    let make = |name: &str, more: &str| {
        format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name}.example.com \
             -keyout {name}.key -out {name}.pem {more} 2> {name}.log"
        )
    };
    let make = format!(
        "{} && {} && mv mail.key key.pem && mv mail.pem certificate.pem",
        make("chain", ""),
        make("mail", "-CA chain.pem -CAkey chain.key")
    );
    let check = "openssl cms -verify -inform DER -in signed.mobileconfig -CAfile chain.pem -purpose any";
    let printed = run("sh", &["-c", &format!("{make} && {command} && {check}")], folder.path(), "");
    let read = std::fs::read_to_string(folder.path().join("postkey.mobileconfig")).unwrap();
    assert_eq!(printed, read);
}

#[test]
#[ignore = "needs javac, which no other test needs"]
fn java_reads_its_settings() {
    check("java", &format!("{PASSWORD}ü😀"), |folder, text| {
        let code = format!(
            "import java.util.Properties;
            class PasswordAuthentication {{ PasswordAuthentication(String user, String password) {{ System.out.println(user); System.out.println(password); }} }}
            abstract class Authenticator {{ protected abstract PasswordAuthentication getPasswordAuthentication(); }}
            class Session {{ static Session getInstance(Properties of, Authenticator by) {{ by.getPasswordAuthentication(); return null; }} }}
            class Read {{ public static void main(String[] arguments) {{ {text} }} }}"
        );
        std::fs::write(folder.join("Read.java"), code).unwrap();
        run("javac", &["-d", ".", "Read.java"], folder, "");
        run("java", &["-Dstdout.encoding=UTF-8", "-Dfile.encoding=UTF-8", "-cp", ".", "Read"], folder, "")
    });
}
