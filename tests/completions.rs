//! Real shells complete postkey's command lines, with the files that the package brings.

use std::path::Path;
use std::process::Command;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/completions");

/// What a shell prints for a script, in which `postkey` is this program. The shell is killed after a minute.
fn run(shell: &[&str], script: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_postkey")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout").arg("60").args(shell).args(["-c", script]).env("PATH", path).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shell:?}: {}: {complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The words that bash offers for the last one of `words`.
fn offered_by_bash(words: &[&str]) -> Vec<String> {
    let (last, before) = words.split_last().unwrap();
    let script = format!(
        "source {FOLDER}/postkey.bash
        [[ $(complete -p postkey) == *'-F _postkey '* ]] || exit 1
        COMP_WORDS=({}) COMP_CWORD={}
        _postkey postkey '{last}' '{}'
        printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("'{word}' ")).collect::<String>(),
        words.len() - 1,
        before.last().unwrap(),
    );
    run(&["bash", "--norc"], &script).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    assert_eq!(offered_by_bash(&["postkey", "pass"]), ["password"]);
    assert_eq!(offered_by_bash(&["postkey", "password", "rem"]), ["remove"]);
    assert_eq!(offered_by_bash(&["postkey", "authorize", "--signs"]), ["--signs-in"]);
    assert_eq!(offered_by_bash(&["postkey", "import", "--keep"]), ["--keep-ports"]);
    assert_eq!(offered_by_bash(&["postkey", "completions", "z"]), ["zsh"]);
}

#[test]
#[ignore = "needs fish, which tests/run installs"]
fn fish_completes_commands_and_options() {
    let complete = |line| {
        let script = format!("source {FOLDER}/postkey.fish; complete --do-complete '{line}'");
        run(&["fish", "--no-config"], &script)
    };
    assert!(complete("postkey pass").starts_with("password\t"));
    assert!(complete("postkey authorize --signs").starts_with("--signs-in\t"));
}

/// The first completion counts, because it is the one that loads the file.
#[test]
#[ignore = "needs zsh, which tests/run installs"]
fn zsh_completes_commands() {
    let script = format!(
        "zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PS1=rea''dy; fpath=({FOLDER} $fpath); autoload -Uz compinit; compinit -D -u'
        zpty -r shell said '*ready*'
        zpty -w -n shell $'postkey pass\\t'
        zpty -r shell said '*password*'
        zpty -d shell"
    );
    run(&["zsh", "-f"], &script);
}
