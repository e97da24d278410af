//! The certificates of TLS listeners: from files that somebody else renews, or of postkey's own authority.
//!
//! `authority.rs` is the authority, and `subtree.rs` what it may sign for; `machine.rs` finds the names that a certificate
//! needs; `own.rs` issues and renews it, and `files.rs` notices renewed files; `issued.rs` reads certificates.

mod authority;
mod files;
mod issued;
mod machine;
mod own;
mod subtree;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use tokio_rustls::rustls::ServerConfig;

use crate::clock::Clock;
use crate::config::host_name::HostName;
use crate::config::{Certificate, Config, ListenerConfig};
use crate::exit::Failed;
use crate::mutex::lock;
pub use authority::{AuthorityError, PublicPart, pem};
use files::FileCertificate;
pub use issued::{CertificateExpiry, Issued, fingerprint};
pub use machine::Machine;
use own::OwnCertificate;
pub use own::read_stored;

/// How often to check whether a certificate has to be replaced. It takes a few system calls.
const TICK: Duration = Duration::from_secs(60);

/// The root certificate of postkey's own authority, in DER, for devices to import. None if no listener uses it, if it has not
/// been created yet, or if it cannot be read.
pub fn certificate_authority_der(config: &Config) -> Option<Vec<u8>> {
    let public = config.has_own_certificate().then(|| PublicPart::read(&config.state_dir))?;
    public.ok().flatten().map(|public| public.root.to_vec())
}

/// The names at which the listeners are reached and for which the existing authority may not sign. None of them if it cannot
/// be read.
pub fn lacking(config: &Config) -> Vec<HostName> {
    let public = PublicPart::read(&config.state_dir).ok().flatten();
    let names = public.iter().flat_map(|_| Machine::here().names(&config.listeners));
    names.filter(|name| public.as_ref().is_some_and(|public| !public.about.permits(name))).collect()
}

/// All certificates of the running listeners.
pub struct ListenerCertificates {
    state_dir: PathBuf,
    clock: Clock,
    current: Mutex<Loaded>,
}

impl ListenerCertificates {
    /// Starts without any.
    pub fn new(state_dir: &Path, clock: Clock) -> Self {
        Self { state_dir: state_dir.to_owned(), clock, current: Mutex::default() }
    }

    /// Loads the certificates that these listeners need. Creates the authority if there is none yet. Does not change those that
    /// are in use.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be used, or if the authority is lost or damaged.
    pub fn load(&self, listeners: &[ListenerConfig]) -> Result<Loaded, Failed> {
        let mut loaded = Loaded::default();
        for certificate in listeners.iter().filter_map(|listener| listener.certificate.as_ref()) {
            match certificate {
                Certificate::Files { chain, key } if loaded.tls(certificate).is_none() => {
                    loaded.files.push(FileCertificate::load(chain, key, self.clock.now())?);
                }
                Certificate::Own { .. } if loaded.own.is_none() => {
                    let own = OwnCertificate::load(&self.state_dir, listeners, &Machine::here(), self.clock.now())?;
                    loaded.own = Some(own);
                }
                _ => {}
            }
        }
        Ok(loaded)
    }

    /// Uses these instead of the current ones.
    pub fn put(&self, loaded: Loaded) {
        *lock(&self.current) = loaded;
    }

    /// Replaces each certificate that has to be replaced now. Blocks on the disk.
    pub fn review(&self) {
        let (mut current, now) = (lock(&self.current), self.clock.now());
        for pair in &mut current.files {
            pair.review(now);
        }
        if let Some(own) = &mut current.own {
            own.review(&Machine::here(), now);
        }
    }

    /// When each certificate in use expires, and postkey's own authority.
    pub fn expiries(&self) -> Vec<CertificateExpiry> {
        let current = lock(&self.current);
        let of_files = current.files.iter().filter_map(FileCertificate::expiry);
        of_files.chain(current.own.iter().flat_map(OwnCertificate::expiries)).collect()
    }

    /// Reviews the certificates every minute, and tells when those expire that are then in use. Never returns.
    pub async fn watch(self: Arc<Self>, tell: impl Fn(Vec<CertificateExpiry>)) {
        loop {
            tell(self.expiries());
            sleep(TICK).await;
            let certificates = Arc::clone(&self);
            let _failed = tokio::task::spawn_blocking(move || certificates.review()).await;
        }
    }
}

/// Certificates that have been read or issued.
#[derive(Default)]
pub struct Loaded {
    files: Vec<FileCertificate>,
    /// All listeners that use the authority share one certificate.
    own: Option<OwnCertificate>,
}

impl Loaded {
    /// The TLS settings with a certificate. It can be replaced there without other settings.
    pub fn tls(&self, certificate: &Certificate) -> Option<Arc<ServerConfig>> {
        match certificate {
            Certificate::Files { chain, key } => {
                self.files.iter().find(|pair| pair.is(chain, key)).map(|pair| Arc::clone(&pair.tls))
            }
            Certificate::Own { .. } => self.own.as_ref().map(|own| Arc::clone(&own.tls)),
        }
    }
}
