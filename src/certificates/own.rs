//! The certificate that postkey's own authority issues for the listeners.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tracing::{error, info, warn};

use super::authority::{Authority, AuthorityError, FLOOR, RENEWAL, Signed, folder, pem};
use super::issued::{CertificateExpiry, Issued};
use super::machine::Machine;
use crate::clock::Moment;
use crate::config::ListenerConfig;
use crate::config::host_name::HostName;
use crate::exit::{Exit, Failed};
use crate::net::tls::{self, ServerCertificate};
use crate::vault::{StoreError, files};

/// The largest file that is read; a real one has 2 KiB.
const MOST: u64 = 64 * 1024;

/// The listeners' certificate, which is renewed in time and when the machine gets another name or address.
pub struct OwnCertificate {
    pub tls: Arc<ServerConfig>,
    certificate: Arc<ServerCertificate>,
    state_dir: PathBuf,
    listeners: Vec<ListenerConfig>,
    about: Issued,
    authority_ends: Moment,
    /// The names that the authority may not sign for, which have been logged.
    lacking: Vec<HostName>,
    /// The failure to renew that has been logged.
    failure: Option<String>,
}

impl OwnCertificate {
    /// Takes the certificate of the last time if it is still good, or issues one.
    pub fn load(
        state_dir: &Path,
        listeners: &[ListenerConfig],
        machine: &Machine,
        now: Moment,
    ) -> Result<Self, Failed> {
        let names = machine.names(listeners);
        let authority = match Authority::open(state_dir, now)? {
            Some(authority) => authority,
            None => create(state_dir, machine, &names, now)?,
        };
        let (names, lacking) = permitted(&authority, names);
        let stored = read_own(state_dir).filter(|stored| stored.chain.get(1) == Some(&authority.public.issuer));
        let stored = stored.and_then(|stored| Some((about(&stored)?, stored)));
        let (about, signed) = match stored.filter(|(about, _)| !is_due(about, &names, now, authority.ends(now))) {
            Some(stored) => stored,
            None => issue(&authority, state_dir, &names, now)?,
        };
        let unusable = |error| Failed::new(Exit::Software, format!("cannot use the certificate just issued: {error}"));
        let certificate = ServerCertificate::new(certify(signed).map_err(unusable)?);
        let tls = tls::server_config(&certificate).map_err(unusable)?;
        warn_of(&lacking, state_dir);
        let (state_dir, listeners) = (state_dir.to_owned(), listeners.to_vec());
        let authority_ends = authority.public.about.ends;
        Ok(Self { tls, certificate, state_dir, listeners, about, authority_ends, lacking, failure: None })
    }

    /// When it and its authority expire.
    pub fn expiries(&self) -> [CertificateExpiry; 2] {
        let listeners = CertificateExpiry {
            file: path(&self.state_dir).display().to_string(),
            ends: self.about.ends,
            // By then it has been renewed, unless that fails.
            soon: RENEWAL / 2,
            advice: "postkey cannot renew it; its log says why",
        };
        let authority = CertificateExpiry {
            file: folder(&self.state_dir).join("authority.pem").display().to_string(),
            ends: self.authority_ends,
            soon: RENEWAL,
            advice: "remove its folder, reload postkey, and import the new authority on every device",
        };
        [listeners, authority]
    }

    /// Renews the certificate if it is time, or if it lacks a name. If that fails, the old one stays.
    pub fn review(&mut self, machine: &Machine, now: Moment) {
        match self.renew(machine, now) {
            Ok(()) => self.failure = None,
            Err(error) => {
                let error = error.to_string();
                if self.failure.as_ref() != Some(&error) {
                    let ends = self.about.ends;
                    error!(error, "cannot renew the listeners' certificate, valid until {ends}: {error}");
                }
                self.failure = Some(error);
            }
        }
    }

    fn renew(&mut self, machine: &Machine, now: Moment) -> Result<(), AuthorityError> {
        let names = machine.names(&self.listeners);
        let is_complete = names.iter().all(|name| self.about.names.contains(name) || self.lacking.contains(name));
        // The authority's file is not read as long as there is nothing to sign.
        if is_complete && !is_due(&self.about, &[], now, Moment(u64::MAX)) {
            return Ok(());
        }
        let authority = Authority::open(&self.state_dir, now)?;
        let authority = authority.ok_or_else(|| AuthorityError::Lost(folder(&self.state_dir).join("authority.pem")))?;
        let (names, lacking) = permitted(&authority, names);
        if lacking != self.lacking {
            warn_of(&lacking, &self.state_dir);
            self.lacking = lacking;
        }
        if is_due(&self.about, &names, now, authority.ends(now)) {
            let (about, signed) = issue(&authority, &self.state_dir, &names, now)?;
            self.certificate.replace(
                certify(signed).map_err(|error| AuthorityError::Unverified("the listeners".to_owned(), error))?,
            );
            self.about = about;
        }
        Ok(())
    }
}

/// Whether a certificate has to be replaced by one with these names that ends at this time.
fn is_due(about: &Issued, names: &[HostName], now: Moment, new_ends: Moment) -> bool {
    let lacks_name = names.iter().any(|name| !about.names.contains(name));
    // In the last months of an authority a new certificate ends when the old one does.
    let is_old = now.after(RENEWAL) >= about.ends && new_ends > about.ends;
    // It was issued while the clock was wrong.
    let is_early = now >= FLOOR && now < about.begins;
    lacks_name || is_old || is_early
}

fn create(state_dir: &Path, machine: &Machine, names: &[HostName], now: Moment) -> Result<Authority, AuthorityError> {
    // Everything that the host is called, so that the authority still fits when a listener is opened to the network.
    let names: Vec<HostName> = names.iter().cloned().chain(HostName::of_machine(&machine.host)).collect();
    let authority = Authority::create(state_dir, &machine.host, &names, now)?;
    let (root, ends) = (
        Issued::read(&authority.public.root).map(|root| root.subject).unwrap_or_default(),
        authority.public.about.ends,
    );
    info!(
        authority = root,
        "created the certificate authority {root}, valid until {ends}; `postkey certificate` tells how to import it"
    );
    Ok(authority)
}

fn issue(
    authority: &Authority,
    state_dir: &Path,
    names: &[HostName],
    now: Moment,
) -> Result<(Issued, Signed), AuthorityError> {
    let (about, signed) = authority.issue(names, now)?;
    let path = path(state_dir);
    let stored = files::replace(&path, &folder(state_dir).join("draft"), &to_pem(&signed));
    if let Err(error) = stored {
        let path = path.display();
        warn!(%error, "cannot store the listeners' certificate in {path}: {error}; after a restart another one is issued");
    }
    let (listed, ends) = (listing(names), about.ends);
    info!(names = listed, %ends, "issued the listeners' certificate for {listed}, valid until {ends}");
    Ok((about, signed))
}

/// Splits names into those for which an authority may sign, and the others.
fn permitted(authority: &Authority, names: Vec<HostName>) -> (Vec<HostName>, Vec<HostName>) {
    names.into_iter().partition(|name| authority.public.about.permits(name))
}

fn warn_of(lacking: &[HostName], state_dir: &Path) {
    if !lacking.is_empty() {
        let (names, folder) = (listing(lacking), folder(state_dir));
        let folder = folder.display();
        warn!(
            names,
            "the listeners' certificate lacks {names}, for which its authority may not sign; for a new authority, which every device has to import, run `rm -r {folder}` and `postkey reload`"
        );
    }
}

fn listing(names: &[HostName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn path(state_dir: &Path) -> PathBuf {
    folder(state_dir).join("listeners.pem")
}

fn about(signed: &Signed) -> Option<Issued> {
    Issued::read(signed.chain.first()?)
}

fn certify(signed: Signed) -> Result<CertifiedKey, tokio_rustls::rustls::Error> {
    tls::certify(signed.chain, PrivatePkcs8KeyDer::from(signed.key).into())
}

fn to_pem(signed: &Signed) -> Vec<u8> {
    let chain = signed.chain.iter().map(|certificate| pem("CERTIFICATE", certificate));
    chain.chain([pem("PRIVATE KEY", &signed.key)]).collect::<String>().into_bytes()
}

/// Reads the certificate of the last time. None if there is none, or if it cannot be used; then another one is issued.
fn read_own(state_dir: &Path) -> Option<Signed> {
    let mut bytes = Vec::new();
    let path = path(state_dir);
    let read = files::open_private(&path)
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes).map_err(StoreError::at(&path)));
    read.ok()?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().ok()?;
    let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(&bytes).ok()? else { return None };
    let signed = Signed { chain, key: key.secret_pkcs8_der().to_vec() };
    let copy = Signed { chain: signed.chain.clone(), key: signed.key.clone() };
    certify(copy).is_ok().then_some(signed)
}

/// The contents of the listeners' certificate that is stored now, read as whoever runs the command. None if there is none.
pub fn read_stored(state_dir: &Path) -> Option<Issued> {
    Issued::read_file(&path(state_dir))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Config;
    use crate::config::environment::Environment;

    const NOW: Moment = Moment(1_800_000_000);
    const DAY: u64 = 24 * 3600;

    struct Place {
        dir: tempfile::TempDir,
        machine: Machine,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
            let addresses = vec!["192.168.1.5".parse().unwrap()];
            Self { dir, machine: Machine { host: "pi".to_owned(), addresses } }
        }

        fn load(&self, more: &str, now: Moment) -> Result<OwnCertificate, Failed> {
            let text = format!(
                "state_dir = \"s\"\n[[listener]]\nprotocol = \"imap\"\naddress = \"0.0.0.0:1\"\nsecurity = \"tls\"\n\
                 certificate = \"own\"\nallow_remote = true\n{more}\n"
            );
            let config = Config::parse(&text, Path::new("postkey.toml"), &Environment::default()).unwrap();
            OwnCertificate::load(self.dir.path(), &config.listeners, &self.machine, now)
        }
    }

    fn shown(own: &OwnCertificate) -> String {
        listing(&Issued::read(&own.certificate.chain()[0]).unwrap().names)
    }

    #[test]
    fn a_certificate_stays_the_same_until_two_thirds_of_its_life_are_over() {
        let place = Place::new();
        let mut own = place.load("", NOW).unwrap();
        let first = own.certificate.chain();
        assert_eq!(shown(&own), "localhost, pi.local, 192.168.1.5");
        assert_eq!(place.load("", NOW.after(DAY)).unwrap().certificate.chain(), first, "after a restart");
        own.review(&place.machine, NOW.after(60 * DAY - 1));
        assert_eq!(own.certificate.chain(), first);
        own.review(&place.machine, NOW.after(60 * DAY));
        let second = own.certificate.chain();
        assert!(second[0] != first[0] && second[1] == first[1], "renewed, by the same authority");
        assert_eq!(place.load("", NOW.after(61 * DAY)).unwrap().certificate.chain(), second);
        assert!(place.load("", NOW.after(300 * DAY)).unwrap().certificate.chain() != second, "after a long rest");
    }

    #[test]
    fn a_new_address_or_name_is_in_the_certificate_at_the_next_review() {
        let mut place = Place::new();
        let mut own = place.load("", NOW).unwrap();
        place.machine.addresses = vec!["10.0.0.9".parse().unwrap()];
        own.review(&place.machine, NOW.after(60));
        assert_eq!(shown(&own), "localhost, pi.local, 10.0.0.9");
        let before = own.certificate.chain();
        place.machine.addresses.clear();
        own.review(&place.machine, NOW.after(120));
        assert_eq!(own.certificate.chain(), before, "a name that is gone is no reason");
        assert_eq!(
            shown(&place.load("names = \"mail.internal\"", NOW.after(180)).unwrap()),
            "localhost, mail.internal, pi.local"
        );
    }

    #[test]
    fn a_name_outside_the_authoritys_constraints_is_left_out() {
        let place = Place::new();
        let root = {
            place.load("names = \"mail.home.example\"", NOW).unwrap();
            Authority::open(place.dir.path(), NOW).unwrap().unwrap().public.root
        };
        let mut own = place.load("names = [\"imap.mail.home.example\", \"mail.other.example\"]", NOW).unwrap();
        assert_eq!(shown(&own), "imap.mail.home.example, localhost, pi.local, 192.168.1.5");
        assert_eq!(listing(&own.lacking), "mail.other.example");
        let before = own.certificate.chain();
        own.review(&place.machine, NOW.after(60));
        assert_eq!(own.certificate.chain(), before, "it is not asked for again and again");
        assert_eq!(Authority::open(place.dir.path(), NOW).unwrap().unwrap().public.root, root);
    }

    #[test]
    fn a_failed_renewal_leaves_the_old_certificate_in_use_until_it_succeeds() {
        let place = Place::new();
        let mut own = place.load("", NOW).unwrap();
        let (before, file) = (own.certificate.chain(), folder(place.dir.path()).join("authority.pem"));
        let whole = fs::read(&file).unwrap();
        fs::write(&file, "damaged").unwrap();
        own.review(&place.machine, NOW.after(70 * DAY));
        assert!(own.failure.as_ref().unwrap().contains("is damaged"));
        assert_eq!(own.certificate.chain(), before);
        let refused = place.load("", NOW.after(70 * DAY)).err().unwrap();
        assert!(refused.exit == Exit::Io && fs::read(&file).unwrap() == b"damaged", "{}", refused.message);
        fs::write(&file, whole).unwrap();
        own.review(&place.machine, NOW.after(70 * DAY + 60));
        assert!(own.failure.is_none() && own.certificate.chain() != before);
    }

    #[test]
    fn a_lost_certificate_of_listeners_is_issued_again_and_a_wrong_clock_corrected() {
        let place = Place::new();
        let path = path(place.dir.path());
        let first = place.load("", NOW).unwrap().certificate.chain();
        for damage in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, "x").unwrap()] {
            damage(&path);
            assert!(place.load("", NOW).unwrap().certificate.chain()[0] != first[0]);
        }
        let mut own = place.load("", NOW.after(400 * DAY)).unwrap();
        let before = own.certificate.chain();
        own.review(&place.machine, Moment(60));
        assert_eq!(own.certificate.chain(), before, "in 1970 nothing is known");
        own.review(&place.machine, NOW);
        assert!(own.about.begins < NOW && own.certificate.chain() != before);
    }

    #[test]
    fn an_authority_at_its_end_does_not_sign_every_minute() {
        let place = Place::new();
        place.load("", NOW).unwrap();
        let end = Authority::open(place.dir.path(), NOW).unwrap().unwrap().public.about.ends;
        let mut own = place.load("", Moment(end.0 - 20 * DAY)).unwrap();
        let before = own.certificate.chain();
        own.review(&place.machine, Moment(end.0 - 10 * DAY));
        assert!(own.certificate.chain() == before && own.failure.is_none());
    }
}
