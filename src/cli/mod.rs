//! The command line: what can be asked, one file per command.

mod authorize;
mod backup;
mod check;
mod completions;
mod doctor;
mod forget;
mod hand;
mod order;
mod owner;
mod password;
mod serve;
mod status;
mod terminal;
mod test;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::Config;
use crate::config::flow::Flow;
use crate::confine::{self, Confined};
use crate::exit::{Exit, Failed};
use crate::net::systemd::Sockets;
use crate::net::trace;
use crate::vault::Vault;

/// Gives any mail program OAuth 2.0: listens on localhost for IMAP, POP3 and SMTP, takes a user name and an app password,
/// and logs in to the provider with a fresh access token.
///
/// Without a command it runs the daemon in the foreground.
#[derive(Parser)]
#[command(name = "postkey", version, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration file; without it, the one in the usual place, if there is one
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set up an account; the same as `postkey authorize ADDRESS`
    #[arg(long, value_name = "ADDRESS")]
    authorize: Option<String>,
    #[command(flatten)]
    options: Box<AuthorizeOptions>,
    /// Log nothing but a trace of the dialogues before the login that is safe to show: directions, verbs and reply codes, sizes
    #[arg(long, conflicts_with = "authorize")]
    trace_dialogue: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Set up an account, or give its authorization anew
    Authorize {
        /// The e-mail address; it is the login name afterwards
        #[arg(id = "authorize", value_name = "ADDRESS")]
        address: String,
        #[command(flatten)]
        options: Box<AuthorizeOptions>,
    },
    /// App passwords: one for each mail program or device
    #[command(subcommand)]
    Password(PasswordCommand),
    /// Remove an account with its tokens and app passwords, and withdraw its authorization at the provider where that can be done
    Forget {
        /// The account's address
        address: String,
        /// Ask for an app password, so that the authorization can be withdrawn at the provider even if nothing has logged in
        /// since the daemon's start
        #[arg(long)]
        revoke: bool,
    },
    /// Write all accounts to a file, sealed as they are: it opens nothing without an app password
    Backup {
        /// The file to write
        file: PathBuf,
    },
    /// Put the accounts of a backup in place
    Restore {
        /// The file that `postkey backup` wrote
        file: PathBuf,
        /// Replace accounts that are newer than the backup, too
        #[arg(long)]
        force: bool,
    },
    /// Show what is served and how the accounts are
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// For monitoring: one line, and the exit code 0 if all is well, 69 if no daemon runs, 74 if the vault
        /// is damaged, has perhaps older records than it had, or cannot be written, 77 if a person has to authorize an account anew
        #[arg(long, conflicts_with = "json")]
        exit_code: bool,
    },
    /// Check the configuration and show all its mistakes
    Check,
    /// Have the running daemon read its configuration anew; sessions go on
    Reload,
    /// Have the running daemon log more or less, until the next reload
    Log {
        /// error, warn, info, debug or trace; or a filter such as warn,postkey::oauth=debug
        filter: String,
    },
    /// Show the running daemon's metrics, in the text form of Prometheus
    Metrics,
    /// Really log in to the provider's servers with the account's token
    Test {
        /// The account's address
        address: String,
        /// Show a trace of each dialogue that is safe to show: directions, verbs and reply codes, sizes
        #[arg(long)]
        trace_dialogue: bool,
    },
    /// Find out why an account does not work, and say what to do. The report holds no secret and can be shown to others
    Doctor {
        /// The account's address
        address: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the script that completes command lines, for a shell to run
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Subcommand)]
enum PasswordCommand {
    /// Make another app password; asks for one that the account has
    Add {
        /// The account's address
        address: String,
        /// What to call it: the mail program or device that it is for
        name: String,
        /// Ask for a password of your own choice; otherwise one is generated
        #[arg(long)]
        choose: bool,
        /// Only for this protocol: imap, pop3 or smtp; can be given several times
        #[arg(long, value_name = "PROTOCOL", value_parser = ["imap", "pop3", "smtp"])]
        protocol: Vec<String>,
        /// Only for this user of this machine, a number or a name; can be given several times
        #[arg(long, value_name = "USER", value_parser = password::user)]
        uid: Vec<u32>,
    },
    /// Show the names of an account's app passwords
    List {
        /// The account's address
        address: String,
    },
    /// Remove an app password; the program that uses it cannot log in any more
    Remove {
        /// The account's address
        address: String,
        /// What it is called
        name: String,
    },
}

/// Belong to `postkey authorize` and to `postkey --authorize` alike.
#[derive(Args)]
#[group(requires = "authorize")]
struct AuthorizeOptions {
    /// The provider, where the address's domain does not tell
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// How to get tokens, where the configuration does not say; usually authorization-code
    #[arg(long, value_name = "GRANT", value_parser = flow())]
    flow: Option<Flow>,
    /// Your client registration at the provider, where the configuration has none
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The file with its client secret
    #[arg(long, value_name = "FILE", requires = "client_id")]
    client_secret_file: Option<PathBuf>,
    /// Take over a refresh token that the same client has got elsewhere, from the next line of the standard input
    #[arg(long)]
    refresh_token_stdin: bool,
    /// Where the browser returns to, where the provider asks for something special
    #[arg(long, value_name = "URI")]
    redirect_uri: Option<url::Url>,
    /// Where to wait for the browser, if its redirect URI leads elsewhere: into a tunnel, or a container
    #[arg(long, value_name = "ADDRESS:PORT")]
    redirect_listen: Option<std::net::SocketAddr>,
    /// Who signs in for this mailbox, if it is somebody else's, a shared one or an alias
    #[arg(long, value_name = "ADDRESS")]
    signs_in: Option<String>,
    /// How long to wait for the sign-in, such as 90s or 10m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Do not open a browser, only print the address
    #[arg(long)]
    no_browser: bool,
    /// Take an app password of your own choice from the first line of the standard input
    #[arg(long)]
    password_stdin: bool,
    /// What to call the account's first app password
    #[arg(long, value_name = "NAME", default_value = "main")]
    password_name: String,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done · 64 wrong command line · 65 unusable input · 67 no such account · 69 server unavailable or refusing ·
70 a defect · 71 a port or socket cannot be had · 74 reading or writing failed · 75 try later · 77 wrong password, or
authorization not given · 78 wrong configuration";

/// Takes a grant by its name.
fn flow() -> impl TypedValueParser<Value = Flow> {
    PossibleValuesParser::new(Flow::ALL.map(Flow::name)).try_map(|name| name.parse::<Flow>())
}

/// Whether this is a command line that [`run`] would carry out: for those who write documentation.
pub fn understands(arguments: impl IntoIterator<Item = OsString>) -> bool {
    Arguments::try_parse_from(arguments).is_ok()
}

/// All commands with their arguments: for completions, and for those who write documentation.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs a command line to its end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Everything that is made from here on is for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    confine::memory();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no mistakes.
            let code = if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
            let _closed = error.print();
            return code;
        }
    };
    prepare(arguments).and_then(carry_out).map_or_else(|failed| fail(&failed), |()| ExitCode::SUCCESS)
}

/// What is known before there are threads.
struct Plan {
    command: Option<Command>,
    file: Option<PathBuf>,
    /// Or its mistakes: not every command wants it.
    config: Result<Config, Failed>,
    /// For the daemon, what it has given up.
    confined: Option<Confined>,
    sockets: Sockets,
}

/// Reads the environment and the configuration, and takes the rights that the command should have.
fn prepare(arguments: Arguments) -> Result<Plan, Failed> {
    let sockets = Sockets::of_process().map_err(|why| Failed::new(Exit::Config, why))?;
    let Arguments { config: file, authorize, options, trace_dialogue, command } = arguments;
    let command = match (authorize, command) {
        (Some(address), None) => Some(Command::Authorize { address, options }),
        (Some(_), Some(_)) => return Err(Failed::new(Exit::Usage, "--authorize is a command of its own")),
        (None, command) => command,
    };
    if trace_dialogue && command.is_some() {
        return Err(Failed::new(Exit::Usage, "--trace-dialogue is for the daemon, and goes behind the command `test`"));
    }
    let mut config = load(file.as_deref());
    if let (Ok(config), true) = (&mut config, trace_dialogue) {
        config.log = trace::filter();
    }
    if let (Ok(config), true) = (&config, command.as_ref().is_some_and(Command::may_open_vault)) {
        owner::step_back(config)?;
    }
    let confined = match (&command, &config) {
        (None, Ok(config)) => Some(confine_daemon(config)?),
        _ => None,
    };
    Ok(Plan { command, file, config, confined, sockets })
}

/// Gives up what the daemon does not need.
fn confine_daemon(config: &Config) -> Result<Confined, Failed> {
    // The folder has to be there to be the one that is written to.
    Vault::make_folder(&config.state_dir)?;
    Ok(confine::daemon(config))
}

fn carry_out(plan: Plan) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(Exit::Os, format!("threads cannot be started: {error}")))?;
    let result = runtime.block_on(dispatch(plan));
    // A thread may still wait for a line from the terminal.
    runtime.shutdown_background();
    result
}

fn fail(failed: &Failed) -> ExitCode {
    terminal::complain(&failed.message);
    ExitCode::from(failed.exit as u8)
}

async fn dispatch(plan: Plan) -> Result<(), Failed> {
    let Plan { command, file, config, confined, sockets } = plan;
    match command {
        None => serve::run(config?, confined.as_ref(), file.as_deref(), sockets).await,
        Some(Command::Authorize { address, options }) => authorize::run(&config?, &address, *options).await,
        Some(Command::Password(command)) => password::run(&config?, command).await,
        Some(Command::Forget { address, revoke }) => forget::run(&config?, &address, revoke).await,
        Some(Command::Status { exit_code: true, .. }) => status::judge(&config?).await,
        Some(Command::Status { json, .. }) => status::run(&config?, json).await,
        Some(Command::Reload) => order::reload(&config?).await,
        Some(Command::Log { filter }) => order::log(&config?, filter).await,
        Some(Command::Metrics) => order::metrics(&config?).await,
        Some(Command::Backup { file }) => backup::backup(&config?, &file).await,
        Some(Command::Restore { file, force }) => backup::restore(&config?, &file, force).await,
        Some(Command::Check) => check::run(&config?),
        Some(Command::Test { address, trace_dialogue }) => test::run(&config?, &address, trace_dialogue).await,
        Some(Command::Doctor { address, json }) => doctor::run(&config?, &address, json).await,
        Some(Command::Completions { shell }) => completions::run(shell),
    }
}

impl Command {
    /// Whether it opens the vault itself where no daemon runs.
    const fn may_open_vault(&self) -> bool {
        !matches!(self, Self::Check | Self::Reload | Self::Log { .. } | Self::Metrics | Self::Completions { .. })
    }
}

/// Reads the configuration; all its mistakes are one failure.
fn load(file: Option<&std::path::Path>) -> Result<Config, Failed> {
    Config::load(file).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failed::new(Exit::Config, lines.join("\n"))
    })
}
