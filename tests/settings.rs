//! Programs read the user name and the password out of their settings as postkey was given them. tests/real sends mail
//! with more of them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const USER: &str = "o'b$home+{x}#%s@example.test";
const PASSWORD: &str = r#"1 a"b\c'd #e$HOME %s ^!`;:,= &|<>*?~@[]()/\x41 \u0041 {g} "#;

/// What `postkey settings` prints for a program.
fn settings(folder: &Path, program: &str, password: &str) -> String {
    let file = folder.join("postkey.toml");
    std::fs::write(&file, "state_dir = \"state\"\n").unwrap();
    let command = ["settings", USER, "--for", program, "--password-stdin", "--config", file.to_str().unwrap()];
    run(env!("CARGO_BIN_EXE_postkey"), &command, folder, &format!("{password}\n"))
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
    let text = settings(folder.path(), program, password);
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
