//! The log: to the journal with fields, or as lines of text or JSON to standard error or a file.

mod plain;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tracing::warn;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Config, LogFormat, log_filter};
use crate::exit::{Exit, Failed};
use crate::guard;
use crate::mutex::lock;

type Output = Box<dyn Layer<Registry> + Send + Sync>;

/// The log of this process. Its filter and its file can be changed while it runs.
pub struct Log {
    filter: reload::Handle<Targets, tracing_subscriber::layer::Layered<Output, Registry>>,
    target: Arc<LogFile>,
    form: Form,
}

/// The format of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// An entry in the journal, with fields.
    Journal,
    Plain,
    Json,
}

impl Form {
    fn of(config: &Config) -> Self {
        match (config.log_format, &config.log_file) {
            (Some(LogFormat::Json), _) => Self::Json,
            (None, None) if goes_to_journal() => Self::Journal,
            _ => Self::Plain,
        }
    }
}

impl Log {
    /// Starts the log. Under systemd it goes to the journal, unless the configuration names a file or a format.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn start(config: &Config) -> Result<Self, Failed> {
        let LogChange { file, filter, form } = Self::prepare(config)?;
        let target = Arc::new(LogFile(Mutex::new(file)));
        let output = output(form, &target);
        let (filter, handle) = reload::Layer::new(filter);
        tracing_subscriber::registry().with(output).with(filter).init();
        Ok(Self { filter: handle, target, form })
    }

    pub fn set_filter(&self, text: &str) -> Result<(), Failed> {
        let filter = log_filter::read(text).map_err(|why| Failed::new(Exit::Usage, why))?;
        self.filter.reload(filter).map_err(|error| Failed::new(Exit::Software, error))
    }

    /// Prepares a change. It opens the file even if its path is the same, because the old file may have been rotated.
    pub fn prepare(config: &Config) -> Result<LogChange, Failed> {
        let file = config.log_file.as_deref().map(open).transpose()?;
        Ok(LogChange { file, filter: config.log.clone(), form: Form::of(config) })
    }

    pub fn put(&self, LogChange { file, filter, form }: LogChange) {
        *lock(&self.target.0) = file;
        // This fails only if the log has ended.
        let _gone = self.filter.reload(filter);
        // The fields of open sessions are stored in the old format.
        if form != self.form {
            warn!("the new log_format or log_file needs a restart, because it changes the format of the log");
        }
    }
}

/// A prepared change of the log.
pub struct LogChange {
    file: Option<File>,
    filter: Targets,
    form: Form,
}

fn output(form: Form, target: &Arc<LogFile>) -> Output {
    let lines = || tracing_subscriber::fmt::layer().fmt_fields(plain::PlainFields).event_format(plain::Sentences);
    let plain = || lines().with_writer(Arc::clone(target)).boxed();
    match form {
        Form::Json => tracing_subscriber::fmt::layer().json().with_writer(Arc::clone(target)).boxed(),
        Form::Plain => plain(),
        // Without prefixes, because administrators search for ACCOUNT=, and MESSAGE_ID= has a special meaning.
        Form::Journal => tracing_journald::layer().map_or_else(
            |_| plain(),
            |journal| journal.with_field_prefix(None).with_syslog_identifier("postkey".to_owned()).boxed(),
        ),
    }
}

/// Whether standard error leads to the journal: then `$JOURNAL_STREAM` names its file (systemd.exec(5)).
pub fn goes_to_journal() -> bool {
    let stderr = rustix::fs::fstat(io::stderr()).ok();
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    stderr.is_some_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn open(path: &Path) -> Result<File, Failed> {
    guard::append(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "; postkey can write to other folders only after a restart",
            _ => "",
        };
        Failed::new(Exit::Config, format!("cannot write the log file {}: {error}{hint}", path.display()))
    })
}

/// Writes to a file, or to standard error if there is none.
struct LogFile(Mutex<Option<File>>);

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *lock(&self.0) {
            Some(file) => file.write(line),
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
