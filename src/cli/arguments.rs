//! The command line as clap reads it.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::flow::Flow;
use crate::config::uid_of;
use crate::secret::Secret;

/// Gives any mail program OAuth 2.0: listens on localhost for IMAP, POP3 and SMTP, accepts a user name and an app
/// password, and logs in to the provider with a fresh access token.
///
/// Without a command it runs the daemon in the foreground.
#[derive(Parser)]
#[command(name = "postkey", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The configuration file; by default the one in the usual place, if there is one
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set up an account; the same as `postkey authorize ADDRESS`
    #[arg(long, value_name = "ADDRESS")]
    pub authorize: Option<String>,
    #[command(flatten)]
    pub options: Box<AuthorizeOptions>,
    /// Log only a trace of the dialogues that is safe to publish: directions, verbs, reply codes and sizes
    #[arg(long, conflicts_with = "authorize")]
    pub trace_dialogue: bool,
    #[command(subcommand)]
    pub command: Option<CliCommand>,
}

#[derive(Subcommand)]
pub enum CliCommand {
    /// Set up an account, or renew its authorization
    Authorize {
        /// The e-mail address, which is also the login name
        #[arg(id = "authorize", value_name = "ADDRESS", required_unless_present = "from")]
        address: Option<String>,
        /// Authorize the accounts of this file without a person: in each line an address, for grants that need no person,
        /// or an address and a refresh token of the same client. Accounts that are authorized already are skipped
        #[arg(long, value_name = "FILE", conflicts_with_all = ["authorize", "refresh_token_stdin", "password_stdin"])]
        from: Option<PathBuf>,
        #[command(flatten)]
        options: Box<AuthorizeOptions>,
    },
    /// Take over accounts of another program, with their tokens: nobody has to sign in again
    Import(Box<ImportOptions>),
    /// Manage app passwords: one for each mail program or device
    #[command(subcommand)]
    Password(PasswordCommand),
    /// Remove an account with its tokens and app passwords, and revoke its authorization at the provider if possible
    Forget {
        /// The account's address
        address: String,
        /// Ask for an app password, to revoke the authorization at the provider even if nothing has logged in since the
        /// daemon started
        #[arg(long)]
        revoke: bool,
    },
    /// Write all accounts to a file. They stay encrypted, and are of no use without an app password
    Backup {
        /// The file to write
        file: PathBuf,
    },
    /// Restore the accounts of a backup
    Restore {
        /// The file that `postkey backup` wrote
        file: PathBuf,
        /// Also replace accounts that are newer than the backup
        #[arg(long)]
        force: bool,
    },
    /// Copy the vault to PostgreSQL or back, and upgrade its tables there
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Show the listeners and the state of the accounts
    Status(StatusOptions),
    /// Check the configuration and show all its mistakes
    Check,
    /// Make the running daemon read its configuration again; sessions continue
    Reload,
    /// Change the log level of the running daemon, until the next reload
    Log {
        /// error, warn, info, debug or trace, or a filter such as warn,postkey::oauth=debug
        filter: String,
    },
    /// Show the running daemon's metrics, in the text format of Prometheus
    Metrics,
    /// Log in to the provider's servers with the account's token
    Test {
        /// The account's address
        address: String,
        /// Show a trace of each dialogue that is safe to publish: directions, verbs, reply codes and sizes
        #[arg(long)]
        trace_dialogue: bool,
    },
    /// Find out why an account does not work, and what to do. The report contains no secrets, so you can show it to
    /// others
    Doctor {
        /// The account's address
        address: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how to set up a mail program with the account
    Settings {
        /// The account's address
        address: String,
        /// The program; without it, all that there are settings for are listed
        #[arg(long = "for", value_name = "PROGRAM")]
        program: Option<String>,
        /// Read an app password from standard input and put it into the settings
        #[arg(long, requires = "program")]
        password_stdin: bool,
    },
    /// Show postkey's own certificate authority, and how to import it on phones and other machines
    Certificate {
        /// Print the authority's certificate, in PEM
        #[arg(long)]
        pem: bool,
        /// Print the authority's certificate, in DER
        #[arg(long, conflicts_with = "pem")]
        der: bool,
    },
    /// Set accounts up on a page in the browser
    Web(WebOptions),
    /// Print the script with which a shell completes command lines
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Subcommand)]
pub enum PasswordCommand {
    /// Add an app password; asks for one that the account already has
    Add {
        /// The account's address
        address: String,
        /// Its name: the mail program or device that it is for
        name: String,
        /// Ask for a password of your own choice; otherwise one is generated
        #[arg(long)]
        choose: bool,
        /// Limit it to this protocol: imap, pop3 or smtp; can be given several times
        #[arg(long, value_name = "PROTOCOL", value_parser = ["imap", "pop3", "smtp"])]
        protocol: Vec<String>,
        /// Limit it to this user of this machine, a number or a name; can be given several times
        #[arg(long, value_name = "USER", value_parser = user)]
        uid: Vec<u32>,
    },
    /// Show the names of an account's app passwords
    List {
        /// The account's address
        address: String,
    },
    /// Remove an app password; the program that uses it can no longer log in
    Remove {
        /// The account's address
        address: String,
        /// The name of the app password
        name: String,
    },
}

#[derive(Subcommand)]
pub enum VaultCommand {
    /// Copy all accounts between a vault in files and the one in PostgreSQL; can be repeated
    Copy {
        /// Copy the vault in this folder to PostgreSQL
        #[arg(long, value_name = "FOLDER", required_unless_present = "to", conflicts_with = "to")]
        from: Option<PathBuf>,
        /// Copy the vault in PostgreSQL to this folder
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
    /// Upgrade the tables in PostgreSQL for this version of postkey
    Migrate,
}

/// The arguments of `postkey status`.
#[derive(Args)]
pub struct StatusOptions {
    /// Only this account
    pub address: Option<String>,
    /// Only accounts that need a person, or whose record in the vault may be older than before
    #[arg(long)]
    pub needs_person: bool,
    /// Only accounts of this provider
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// As JSON, with one account in each line
    #[arg(long, conflicts_with = "json")]
    pub json_lines: bool,
    /// For monitoring: print one line, and exit with 0 if all is well, 69 if no daemon runs, 74 if the vault is
    /// damaged, may have older records than before, or cannot be written, 77 if somebody has to authorize an
    /// account again
    #[arg(long, conflicts_with_all = ["address", "needs_person", "provider", "json", "json_lines"])]
    pub exit_code: bool,
}

/// The options of `postkey authorize` and of `postkey --authorize`.
#[derive(Args, Default)]
#[group(requires = "authorize")]
pub struct AuthorizeOptions {
    /// The provider, if the address's domain does not decide it
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// How to get tokens, if the configuration does not say; usually authorization-code
    #[arg(long, value_name = "GRANT", value_parser = flow())]
    pub flow: Option<Flow>,
    /// Your client registration at the provider, if the configuration has none
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// The file with the client secret
    #[arg(long, value_name = "FILE", requires = "client_id")]
    pub client_secret_file: Option<PathBuf>,
    /// The client secret itself, if it comes from another program.
    #[arg(skip)]
    pub client_secret: Option<Secret>,
    /// Read a refresh token of the same client from the next line of standard input
    #[arg(long)]
    pub refresh_token_stdin: bool,
    /// The redirect URI, if the provider requires a special one
    #[arg(long, value_name = "URI")]
    pub redirect_uri: Option<url::Url>,
    /// The address to listen on for the browser, if the redirect URI leads through a tunnel or into a container
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub redirect_listen: Option<std::net::SocketAddr>,
    /// The address to sign in with, if the mailbox belongs to somebody else, is shared, or is an alias
    #[arg(long, value_name = "ADDRESS")]
    pub signs_in: Option<String>,
    /// How long to wait for the sign-in, such as 90s or 10m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Only print the address, do not open a browser
    #[arg(long)]
    pub no_browser: bool,
    /// Read an app password of your choice from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// The name of the account's first app password
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub password_name: String,
}

/// The options of `postkey web`.
#[derive(Args)]
pub struct WebOptions {
    /// Only print the link, do not open a browser
    #[arg(long, conflicts_with = "stop")]
    pub no_browser: bool,
    /// Close the page
    #[arg(long)]
    pub stop: bool,
    /// The users of this machine whose browsers may use the link.
    #[arg(skip)]
    pub users: Vec<u32>,
}

/// The arguments of `postkey import`.
#[derive(Args)]
pub struct ImportOptions {
    /// The files of the other program. They are only read
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Add listeners to the configuration that take the place of the other program's ports
    #[arg(long)]
    pub keep_ports: bool,
    /// Add what the accounts need to the configuration
    #[arg(long)]
    pub write: bool,
    /// The file with the password that mail programs use with the other program, for this account or for all; can be given
    /// several times
    #[arg(long, value_name = "[ADDRESS=]FILE")]
    pub password_file: Vec<String>,
    /// Give the accounts new app passwords instead of those that mail programs have
    #[arg(long)]
    pub new_password: bool,
    /// The account, if the file does not name it
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// The command that decrypts a file, such as `gpg --decrypt`: reads it from standard input
    #[arg(long, value_name = "COMMAND")]
    pub decrypt_command: Option<String>,
    /// The provider, if the endpoints do not decide it
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// The client registration, if the files do not name it
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// The file with the client secret
    #[arg(long, value_name = "FILE", requires = "client_id")]
    pub client_secret_file: Option<PathBuf>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done · 64 wrong command line · 65 unusable input · 67 no such account · 69 server unavailable or refusing ·
70 a defect · 71 a port or socket is not available · 74 reading or writing failed · 75 try later · 77 wrong password, or
authorization not given · 78 wrong configuration";

impl VaultCommand {
    /// The folder of the vault in files.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Copy { from, to } => from.as_deref().or(to.as_deref()),
            Self::Migrate => None,
        }
    }
}

impl CliCommand {
    /// Whether it opens the vault of the configuration itself if no daemon runs.
    pub const fn may_open_vault(&self) -> bool {
        !matches!(
            self,
            Self::Certificate { .. }
                | Self::Check
                | Self::Reload
                | Self::Log { .. }
                | Self::Metrics
                | Self::Vault(_)
                | Self::Completions { .. }
        )
    }
}

/// Parses a user of this machine, given by number or name.
fn user(text: &str) -> Result<u32, String> {
    text.parse().or_else(|_| uid_of(text))
}

/// Parses the name of a grant.
fn flow() -> impl TypedValueParser<Value = Flow> {
    PossibleValuesParser::new(Flow::ALL.map(Flow::name)).try_map(|name| name.parse::<Flow>())
}

/// Whether [`super::run`] would accept this command line. The documentation's tests use it.
pub fn understands(arguments: impl IntoIterator<Item = OsString>) -> bool {
    Arguments::try_parse_from(arguments).is_ok()
}

/// All commands with their arguments. The documentation's tests use it.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Prints the script with which `shell` completes command lines. It is not an error if the reader closes the pipe.
pub fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "postkey", &mut script);
    let _closed = std::io::stdout().write_all(&script);
}
