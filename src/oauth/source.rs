//! Reads secrets from the sources that the configuration names.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Failure;
use crate::config::assertion::KeySource;
use crate::config::environment::credentials_folder;
use crate::config::secret_source::SecretSource;
use crate::pasted::decoded;
use crate::process_group;
use crate::secret::{Secret, without_line_end};
use crate::wire::printable;

/// The largest secret, in bytes; a key with its certificates has some KiB.
const MOST: u64 = 64 * 1024;

/// How much of a command's stderr is shown, in bytes.
const MOST_STDERR: u64 = 1024;

/// How long a command may take. A client waits for half a minute, and its login takes time as well.
const COMMAND: Duration = Duration::from_secs(15);

/// Reads `what` without the line end after it. Blanks belong to it.
///
/// # Errors
///
/// [`Failure::Misconfigured`] if it cannot be read.
pub async fn read(source: &SecretSource, what: &str) -> Result<Secret, Failure> {
    let secret = read_whole(source, what).await?;
    match without_line_end(secret.expose()) {
        blank if blank.trim_ascii().is_empty() => Err(unreadable(source, what, "it is empty")),
        line => Ok(Secret::new(line.to_vec())),
    }
}

/// Reads a key file and its password. The file keeps its last bytes, because PKCS#12 may end like a line.
///
/// # Errors
///
/// As [`read`].
pub async fn read_key(key: &KeySource, what: &str) -> Result<(Secret, Option<Secret>), Failure> {
    let password = match &key.password {
        Some(source) => Some(read(source, &format!("the password of {what}")).await?),
        None => None,
    };
    Ok((read_whole(&key.file, what).await?, password))
}

pub(super) fn unreadable(source: &SecretSource, what: &str, why: &str) -> Failure {
    Failure::Misconfigured(format!("{what} cannot be read from {source}: {why}"))
}

async fn read_whole(source: &SecretSource, what: &str) -> Result<Secret, Failure> {
    let bytes = match source {
        SecretSource::Text(secret) => return Ok(secret.clone()),
        SecretSource::File(path) => read_file(path).await,
        SecretSource::Command(words) => run(words, COMMAND).await,
        SecretSource::Credential(name) => match credentials_folder() {
            Some(folder) => read_file(&folder.join(name)).await,
            None => {
                Err("systemd has handed over no credentials; add LoadCredential= to the service's unit, and start it"
                    .to_owned())
            }
        },
        SecretSource::Environment(name) => match std::env::var_os(name) {
            Some(value) => Ok(Zeroizing::new(value.into_encoded_bytes())),
            None => Err("this variable is not set".to_owned()),
        },
    };
    bytes.map(|bytes| Secret::new(decoded(&bytes).into_owned())).map_err(|why| unreadable(source, what, &why))
}

async fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    read_most(file, MOST).await
}

async fn read_most(from: impl AsyncRead + Unpin, most: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(most + 1).read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most { Err(format!("it is larger than {most} bytes")) } else { Ok(bytes) }
}

/// Runs a command without a shell, and returns its output. Kills a command that takes too long, with all that it has started.
async fn run(words: &[String], limit: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut command = process_group::command(words).map_err(|error| error.to_string())?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, group) = process_group::start(&mut command).map_err(|error| error.to_string())?;
    let (Some(output), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("its output is lost".to_owned());
    };
    let read_stderr = async {
        let mut said = Vec::new();
        let _cut = (&mut stderr).take(MOST_STDERR).read_to_end(&mut said).await;
        // A full pipe must not stop the command.
        let _rest = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        printable(String::from_utf8_lossy(&said).trim())
    };
    let run = async { tokio::join!(read_most(output, MOST), read_stderr) };
    let ended = timeout(limit, async { (run.await, child.wait().await) }).await;
    let ((output, said), status) = ended.map_err(|_| {
        group.kill();
        format!("it did not end within {} s", limit.as_secs())
    })?;
    match (output, status) {
        (Ok(output), Ok(status)) if status.success() => Ok(output),
        (Ok(_), Ok(status)) => Err(format!("{status}: {said}")),
        (Ok(_), Err(error)) => Err(error.to_string()),
        (Err(why), _) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn output(script: &str, limit: Duration) -> Result<String, String> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, limit).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn a_command_prints_its_secret_or_fails_with_its_stderr() {
        let run_script = |script| output(script, COMMAND);
        assert_eq!(run_script("printf hush; echo careful >&2").await.unwrap(), "hush");
        assert_eq!(run_script("echo hush; echo no key >&2; exit 3").await.unwrap_err(), "exit status: 3: no key");
        assert_eq!(run_script("head -c 70000 /dev/zero").await.unwrap_err(), "it is larger than 65536 bytes");
        let noisy = run_script("head -c 1000000 /dev/zero >&2; exit 1").await.unwrap_err();
        assert!(noisy.len() <= MOST_STDERR as usize + 20, "{} bytes", noisy.len());
        assert!(run(&["/nowhere".to_owned()], COMMAND).await.unwrap_err().contains("No such file"));
    }

    /// cargo's variables are examples of secrets in the environment.
    #[tokio::test]
    async fn a_command_gets_only_the_usual_variables_and_runs_in_the_root_folder() {
        let printed = output("env; echo folder $(pwd)", COMMAND).await.unwrap();
        assert!(printed.contains("PATH=") && printed.contains("folder /\n") && !printed.contains("CARGO"), "{printed}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let script = format!("mkfifo {0}; cat {0} & echo $! > {0}.pid; wait", fifo.display());
        let result = output(&script, Duration::from_secs(1)).await;
        assert_eq!(result.unwrap_err(), "it did not end within 1 s");
        let pid = std::fs::read_to_string(fifo.with_extension("pid")).unwrap();
        let proc = format!("/proc/{}/cmdline", pid.trim());
        // A zombie has no command line.
        let gone = async {
            while std::fs::read(&proc).is_ok_and(|line| !line.is_empty()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.expect("it is killed");
    }

    #[tokio::test]
    async fn a_secret_has_no_line_end_and_is_never_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "hu sh \t\r\n").unwrap();
        let source = SecretSource::File(file.clone());
        assert_eq!(read(&source, "the secret").await.ok().unwrap().expose(), b"hu sh \t");
        std::fs::write(&file, " \n").unwrap();
        let failure = read(&source, "the secret").await.err().unwrap();
        assert_eq!(failure.to_string(), format!("the secret cannot be read from {}: it is empty", file.display()));
        let variable = SecretSource::Environment("POSTKEY_TESTS_HAVE_NO_SUCH_VARIABLE".to_owned());
        assert!(read(&variable, "the secret").await.err().unwrap().to_string().contains("is not set"));
    }
}
