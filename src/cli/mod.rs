//! The command line: one file for each command.

mod accounts;
mod admin;
mod arguments;
mod authorize;
mod backup;
mod browser;
mod certificate;
mod check;
mod doctor;
mod forget;
mod import;
mod owner;
mod password;
mod progress;
mod serve;
mod settings;
mod status;
mod terminal;
mod test;
mod vault;
mod web;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::Config;
use crate::confine::{self, Confined};
use crate::exit::{Exit, Failed};
use crate::net::systemd::Sockets;
use crate::net::trace;
use crate::vault::Vault;
use crate::web::redirect::own_users;
use arguments::{Arguments, CliCommand};
pub use arguments::{command, understands};

/// Runs a command line to its end.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Every file created from here on is accessible to this user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    confine::memory();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are not errors.
            let code = if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
            let _closed = error.print();
            return code;
        }
    };
    match prepare(arguments).and_then(carry_out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            terminal::fail(&failed.message);
            ExitCode::from(failed.exit as u8)
        }
    }
}

/// A command line, with everything that has to be decided before there are threads.
struct Invocation {
    command: Option<CliCommand>,
    file: Option<PathBuf>,
    /// The configuration or its mistakes, because not every command needs it.
    config: Result<Config, Failed>,
    /// None for commands, which are not confined.
    confined: Option<Confined>,
    sockets: Sockets,
    /// The files that `postkey import` names.
    import: Option<import::ImportFiles>,
}

/// Reads the environment and the configuration, and drops the privileges that the command does not need.
fn prepare(arguments: Arguments) -> Result<Invocation, Failed> {
    let sockets = Sockets::of_process().map_err(|why| Failed::new(Exit::Config, why))?;
    let Arguments { config: file, authorize, options, trace_dialogue, command } = arguments;
    let mut command = match (authorize, command) {
        (Some(address), None) => Some(CliCommand::Authorize { address: Some(address), from: None, options }),
        (Some(_), Some(_)) => return Err(Failed::new(Exit::Usage, "`--authorize` cannot be combined with a command")),
        (None, command) => command,
    };
    if trace_dialogue && command.is_some() {
        return Err(Failed::new(
            Exit::Usage,
            "`--trace-dialogue` is for the daemon; for a test run `postkey test --trace-dialogue`",
        ));
    }
    // Do both of these before root drops its privileges.
    if let Some(CliCommand::Authorize { options, .. }) = &mut command {
        options.no_browser |= !browser::is_own_session();
    }
    if let Some(CliCommand::Web(options)) = &mut command {
        options.no_browser |= !browser::is_own_session();
        options.users = own_users();
    }
    let import = match &command {
        Some(CliCommand::Import(options)) => Some(import::ImportFiles::read(options)?),
        _ => None,
    };
    let mut config = check::load(file.as_deref());
    if let (Ok(config), true) = (&mut config, trace_dialogue) {
        config.log = trace::filter();
    }
    if let (Ok(config), true) = (&config, command.as_ref().is_some_and(CliCommand::may_open_vault)) {
        owner::step_back(config)?;
    }
    if let (Ok(_), Some(CliCommand::Vault(command))) = (&config, &command)
        && let Some(folder) = command.folder()
    {
        owner::become_owner(folder)?;
    }
    let confined = match (&command, &config) {
        (None, Ok(config)) => {
            // Landlock cannot allow a folder that does not exist yet.
            Vault::make_folder(&config.state_dir)?;
            Some(confine::daemon(config))
        }
        _ => None,
    };
    Ok(Invocation { command, file, config, confined, sockets, import })
}

fn carry_out(invocation: Invocation) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(Exit::Os, format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(dispatch(invocation));
    // A thread may still wait for a line from the terminal.
    runtime.shutdown_background();
    result
}

async fn dispatch(invocation: Invocation) -> Result<(), Failed> {
    let Invocation { command, file, config, confined, sockets, import } = invocation;
    match command {
        None => serve::run(config?, confined, file.as_deref(), sockets).await,
        Some(CliCommand::Web(options)) => web::run(config?, file.as_deref(), sockets, options).await,
        Some(CliCommand::Authorize { address, from, options }) => match (address, from) {
            (_, Some(file)) => authorize::run_many(&config?, &file, &options).await,
            (address, None) => authorize::run(&config?, &address.unwrap_or_default(), *options).await,
        },
        Some(CliCommand::Import(options)) => {
            import::run(&config?, file.as_deref(), *options, import.unwrap_or_default()).await
        }
        Some(CliCommand::Password(command)) => password::run(&config?, command).await,
        Some(CliCommand::Forget { address, revoke }) => forget::run(&config?, &address, revoke).await,
        Some(CliCommand::Vault(command)) => vault::run(&config?, command).await,
        Some(CliCommand::Status(options)) => status::run(&config?, options).await,
        Some(CliCommand::Reload) => admin::reload(&config?).await,
        Some(CliCommand::Log { filter }) => admin::set_log_filter(&config?, filter).await,
        Some(CliCommand::Metrics) => admin::metrics(&config?).await,
        Some(CliCommand::Backup { file }) => backup::backup(&config?, &file).await,
        Some(CliCommand::Restore { file, force }) => backup::restore(&config?, &file, force).await,
        Some(CliCommand::Certificate { pem, der }) => certificate::run(&config?, pem, der),
        Some(CliCommand::Check) => check::run(&config?),
        Some(CliCommand::Test { address, trace_dialogue }) => test::run(&config?, &address, trace_dialogue).await,
        Some(CliCommand::Doctor { address, json }) => doctor::run(&config?, &address, json).await,
        Some(CliCommand::Settings { address, program, password_stdin }) => {
            settings::run(&config?, &address, program.as_deref(), password_stdin).await
        }
        Some(CliCommand::Completions { shell }) => {
            arguments::print_completions(shell);
            Ok(())
        }
    }
}
