//! postkey's own certificate authority.
//!
//! It has two certificates. Devices import the root. Its private key signs one thing, the certificate of the issuer, and is
//! forgotten before anything is stored. The issuer's key is what postkey keeps, and it signs the certificates of
//! listeners. Both certificates are limited to the same names. So clients that do not apply the limits of a root, as
//! Java's, still apply those of the issuer. See `docs/design/decisions/0025-own-authority.md`.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::issued::Issued;
use super::subtree::Subtree;
use crate::clock::Moment;
use crate::config::host_name::HostName;
use crate::exit::{Exit, Failed};
use crate::net::tls;
use crate::random;
use crate::vault::{StoreError, files};

const DAY: u64 = 24 * 3600;

/// How long an authority is valid. Devices have to import its successor, so it is long; what it may sign for is short.
const AUTHORITY_LIFE: u64 = 3650 * DAY;

/// How long the certificate of listeners is valid. Apple's clients accept 825 days from an authority that was imported.
const LIFE: u64 = 90 * DAY;

/// How long before its end it is renewed.
pub const RENEWAL: u64 = LIFE / 3;

/// How much earlier than now it begins to be valid, for clients whose clocks are behind.
const EARLIER: u64 = DAY;

/// The beginning of 2026. An earlier time is wrong: the machine has no battery for its clock, and has not asked for the
/// time yet. An authority that began and ended in 1970 would have to be imported again.
pub const FLOOR: Moment = Moment(1_767_225_600);

/// The beginning of the file's first line, which is followed by a checksum of the rest.
const MAGIC: &str = "postkey-authority 1";

/// The largest file that is read; a real one has 3 KiB.
const MOST: u64 = 64 * 1024;

/// The folder in the state folder. If it is there, there has been an authority.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("authority")
}

/// The file in that folder.
fn file(state_dir: &Path) -> PathBuf {
    folder(state_dir).join("authority.pem")
}

/// Why the authority cannot be used. A new one never takes its place without being asked for, because every device would
/// reject its certificates.
#[derive(Debug)]
pub enum AuthorityError {
    /// Its folder is there, and its file is not.
    Lost(PathBuf),
    /// Its file is not what was written.
    Damaged(PathBuf),
    /// It was valid until this time.
    Expired(PathBuf, Moment),
    Store(StoreError),
    /// The library refuses to create or sign a certificate.
    Signing(rcgen::Error),
    /// The certificate is not valid for this name.
    Unverified(String, rustls::Error),
}

impl std::fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, file) = match self {
            Self::Lost(file) => {
                ("is missing; restore it from a backup of the state folder, or if there is none".to_owned(), file)
            }
            Self::Damaged(file) => {
                ("is damaged; restore it from a backup of the state folder, or if there is none".to_owned(), file)
            }
            Self::Expired(file, ends) => (format!("expired on {ends};"), file),
            Self::Store(error) => return error.fmt(f),
            Self::Signing(error) => {
                return write!(f, "cannot create a certificate: {error}; please report this defect");
            }
            Self::Unverified(name, error) => {
                return write!(
                    f,
                    "the certificate that postkey's own authority has just signed is not valid for {name}: {error}; check this \
                     machine's clock"
                );
            }
        };
        let folder = file.parent().unwrap_or(file).display();
        write!(
            f,
            "{}, the certificate authority of postkey, {what} run `rm -r {folder}`, and postkey creates another one, which every \
             device has to import",
            file.display()
        )
    }
}

impl std::error::Error for AuthorityError {}

impl From<StoreError> for AuthorityError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Signing(error)
    }
}

impl From<AuthorityError> for Failed {
    fn from(error: AuthorityError) -> Self {
        let exit = match error {
            AuthorityError::Signing(_) => Exit::Software,
            _ => Exit::Io,
        };
        Self::new(exit, error)
    }
}

/// The part that is not secret.
pub struct PublicPart {
    /// The root, which devices import.
    pub root: CertificateDer<'static>,
    /// The issuer, which servers send after their own certificate.
    pub issuer: CertificateDer<'static>,
    /// The names that the issuer may sign for, and until when.
    pub about: Issued,
}

impl PublicPart {
    /// Reads them as whoever runs the command, who need not be the owner. None if no authority has been created.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let path = file(state_dir);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(parse(&bytes).ok_or(AuthorityError::Damaged(path))?.0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder(state_dir).exists() => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AuthorityError::Lost(path)),
            Err(error) => Err(StoreError::Failed(path, error).into()),
        }
    }
}

/// The certificates, with the issuer's key.
pub struct Authority {
    pub public: PublicPart,
    key: KeyPair,
}

/// A certificate of listeners: its chain, and its key in PKCS #8.
pub struct Signed {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
}

impl Authority {
    /// Opens the authority in this state folder. None if none has been created.
    pub fn open(state_dir: &Path, now: Moment) -> Result<Option<Self>, AuthorityError> {
        let (folder, path) = (folder(state_dir), file(state_dir));
        if folder.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        files::check_folder(&folder)?;
        let opened = match files::open_private(&path) {
            Err(StoreError::Failed(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(AuthorityError::Lost(path));
            }
            opened => opened?,
        };
        let mut bytes = Vec::new();
        opened.take(MOST).read_to_end(&mut bytes).map_err(StoreError::at(&path))?;
        let (public, key) = parse(&bytes).ok_or_else(|| AuthorityError::Damaged(path.clone()))?;
        let key = KeyPair::try_from(&key).map_err(|_| AuthorityError::Damaged(path.clone()))?;
        if now >= public.about.ends {
            return Err(AuthorityError::Expired(path, public.about.ends));
        }
        Ok(Some(Self { public, key }))
    }

    /// Creates an authority for these names and everything private, and stores it. There must not be one.
    pub fn create(state_dir: &Path, host: &str, names: &[HostName], now: Moment) -> Result<Self, AuthorityError> {
        let authority = Self::new(host, names, now)?;
        let (folder, new) = (folder(state_dir), state_dir.join("authority.new"));
        // A crash leaves an unfinished one.
        let _missing = std::fs::remove_dir_all(&new);
        files::make_folder(&new)?;
        let (path, draft) = (new.join("authority.pem"), new.join("draft"));
        files::replace(&path, &draft, &authority.to_bytes()).map_err(StoreError::at(&path))?;
        // It is there as a whole or not at all.
        std::fs::rename(&new, &folder).map_err(StoreError::at(&folder))?;
        files::sync_folder(state_dir).map_err(StoreError::at(state_dir))?;
        Ok(authority)
    }

    fn new(host: &str, names: &[HostName], now: Moment) -> Result<Self, AuthorityError> {
        let mut permitted: Vec<Subtree> = Subtree::private().collect();
        for name in names {
            if !permitted.iter().any(|subtree| subtree.contains(name)) {
                permitted.push(Subtree::around(name));
            }
        }
        let label: String = host.split('.').next().unwrap_or_default().chars().take(32).collect();
        let tag: String = random::bytes::<3>().iter().map(|byte| format!("{byte:02x}")).collect();
        let ends = now.max(FLOOR).after(AUTHORITY_LIFE);
        let mut root = authority_params(&format!("postkey authority {tag} of {label}"), 1, &permitted, ends);
        root.use_authority_key_identifier_extension = false;
        let root_key = KeyPair::generate()?;
        let root_certificate = root.self_signed(&root_key)?;
        let mut issuer = authority_params(&format!("postkey issuer {tag} of {label}"), 0, &permitted, ends);
        issuer.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let issuer = issuer.signed_by(&key, &Issuer::new(root, root_key))?.der().clone();
        let about = Issued::read(&issuer).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let public = PublicPart { root: root_certificate.der().clone(), issuer, about };
        Ok(Self { public, key })
    }

    /// When a certificate ends that is issued now.
    pub fn ends(&self, now: Moment) -> Moment {
        now.max(FLOOR).after(LIFE).min(self.public.about.ends)
    }

    /// Issues a certificate for these names, all of which the authority has to permit, and verifies it as a client does.
    pub fn issue(&self, names: &[HostName], now: Moment) -> Result<(Issued, Signed), AuthorityError> {
        let (now, ends) = (now.max(FLOOR), self.ends(now));
        let mut params = params(now.0.saturating_sub(EARLIER), ends);
        // Some programs show it. It has at most 64 letters (RFC 5280 appendix A.1).
        let is_telling =
            |name: &&HostName| matches!(name, HostName::Dns(name) if name.len() <= 64 && name != "localhost");
        let first = names.iter().find(is_telling);
        let subject = first.map_or_else(|| "postkey".to_owned(), ToString::to_string);
        params.distinguished_name.push(DnType::CommonName, subject);
        for name in names {
            params.subject_alt_names.push(match name {
                HostName::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
                HostName::Address(address) => SanType::IpAddress(*address),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = Default::default();
        issuer.distinguished_name.push(DnType::CommonName, self.public.about.subject.as_str());
        let issuer = Issuer::new(issuer, &self.key);
        let chain = vec![params.signed_by(&key, &issuer)?.der().clone(), self.public.issuer.clone()];
        for name in names {
            self.verify(&chain, name, now)?;
        }
        let about = chain.first().and_then(|own| Issued::read(own)).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        Ok((about, Signed { chain, key: key.serialize_der() }))
    }

    fn verify(&self, chain: &[CertificateDer<'_>], name: &HostName, now: Moment) -> Result<(), AuthorityError> {
        let (root, time) = (self.public.root.clone(), UnixTime::since_unix_epoch(Duration::from_secs(now.0)));
        let verify = |server| tls::verify_chain(root, chain, &server, time);
        let server = match name {
            HostName::Dns(name) => {
                ServerName::try_from(name.as_str()).map_err(|error| rustls::Error::General(error.to_string()))
            }
            HostName::Address(address) => Ok(ServerName::from(*address)),
        };
        server.and_then(verify).map_err(|error| AuthorityError::Unverified(name.to_string(), error))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let PublicPart { root, issuer, .. } = &self.public;
        let blocks = [
            ("CERTIFICATE", root.as_ref()),
            ("CERTIFICATE", issuer.as_ref()),
            ("PRIVATE KEY", self.key.serialized_der()),
        ];
        let rest: String = blocks.into_iter().map(|(label, der)| pem(label, der)).collect();
        format!("{MAGIC} {}\n{rest}", checksum(rest.as_bytes())).into_bytes()
    }
}

/// Reads the file of an authority. None if a single bit differs from what was written.
fn parse(bytes: &[u8]) -> Option<(PublicPart, PrivatePkcs8KeyDer<'static>)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (first, rest) = bytes.split_at_checked(end + 1)?;
    if first != format!("{MAGIC} {}\n", checksum(rest)).as_bytes() {
        return None;
    }
    let mut certificates = CertificateDer::pem_slice_iter(rest);
    let (root, issuer) = (certificates.next()?.ok()?, certificates.next()?.ok()?);
    let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(rest).ok()? else { return None };
    let about = Issued::read(&issuer)?;
    Some((PublicPart { root, issuer, about }, key))
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A block of PEM (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let encoded = base64::prelude::BASE64_STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for (at, letter) in encoded.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    let _infallible = write!(text, "\n-----END {label}-----\n");
    text
}

fn params(begins: u64, ends: Moment) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = Default::default();
    let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    (params.not_before, params.not_after) = (at(begins), at(ends.0));
    params.use_authority_key_identifier_extension = true;
    params
}

/// An authority that may sign for these subtrees only, and has at most so many authorities below it.
fn authority_params(subject: &str, below: u8, permitted: &[Subtree], ends: Moment) -> CertificateParams {
    let mut params = params(FLOOR.0, ends);
    params.distinguished_name.push(DnType::CommonName, subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let permitted_subtrees = permitted.iter().map(|subtree| match subtree {
        Subtree::Domain(domain) => GeneralSubtree::DnsName(domain.clone()),
        Subtree::Network(network) => {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(network.network(), network.prefix_len()))
        }
    });
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted_subtrees.collect(), excluded_subtrees: Vec::new() });
    params
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Moment = Moment(1_800_000_000);

    fn names(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| HostName::read(name).unwrap()).collect()
    }

    fn private_folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        dir
    }

    #[test]
    fn an_authority_signs_after_a_restart_what_devices_accept_that_have_imported_it() {
        let dir = private_folder();
        assert!(Authority::open(dir.path(), NOW).unwrap().is_none() && PublicPart::read(dir.path()).unwrap().is_none());
        let created = Authority::create(dir.path(), "pi", &names(&["mail.home.example"]), NOW).unwrap();
        let opened = Authority::open(dir.path(), NOW).unwrap().unwrap();
        assert_eq!(opened.public.root, created.public.root);
        assert_eq!(PublicPart::read(dir.path()).unwrap().unwrap().root, created.public.root);
        let wanted = names(&["mail.home.example", "pi.local", "localhost", "192.168.1.5", "::1", "10.1.2.3"]);
        let about = opened.issue(&wanted, NOW).unwrap().0;
        assert_eq!(about.names.len(), wanted.len());
        assert!(wanted.iter().all(|name| about.names.contains(name) && opened.public.about.permits(name)));
        assert!((about.begins, about.ends) == (Moment(NOW.0 - EARLIER), NOW.after(LIFE)), "less than 398 days");
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder(dir.path())), mode(file(dir.path()))), (0o700, 0o600));
    }

    #[test]
    fn what_an_authority_may_not_sign_no_device_accepts() {
        let authority = Authority::new("pi", &names(&["mail.home.example", "192.0.2.7"]), NOW).unwrap();
        for name in ["www.example.com", "home.example", "evil-mail.home.example", "192.0.2.8", "8.8.8.8", "2001:db8::1"]
        {
            assert!(!authority.public.about.permits(&names(&[name])[0]), "{name}");
            let refused = authority.issue(&names(&["localhost", name]), NOW).err().unwrap();
            let is_constraint = matches!(&refused, AuthorityError::Unverified(_, error) if format!("{error:?}").contains("NameConstraint"));
            assert!(is_constraint, "{name}: {refused:?}");
        }
        assert!(authority.issue(&names(&["mail.home.example", "192.0.2.7"]), NOW).is_ok());
    }

    #[test]
    fn the_only_key_that_is_stored_is_limited_to_the_same_names_as_the_root() {
        let authority = Authority::new("pi", &names(&["mail.home.example"]), NOW).unwrap();
        let PublicPart { root, issuer, about } = &authority.public;
        assert_eq!(Issued::read(root).unwrap().permitted, about.permitted);
        assert_eq!(about.permitted.len(), Subtree::private().count() + 1);
        let is_key_of = |certificate: &CertificateDer<'static>| {
            tls::certify(vec![certificate.clone()], PrivatePkcs8KeyDer::from(authority.key.serialize_der()).into())
                .is_ok()
        };
        assert!(is_key_of(issuer) && !is_key_of(root));
        assert_eq!(
            String::from_utf8(authority.to_bytes()).unwrap().matches("PRIVATE KEY-----").count(),
            2,
            "one block"
        );
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_detected() {
        let bytes = Authority::new("pi", &[], NOW).unwrap().to_bytes();
        assert!(parse(&bytes).is_some());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged).is_none(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn a_lost_damaged_or_exposed_authority_is_reported_and_never_replaced() {
        let dir = private_folder();
        let root = Authority::create(dir.path(), "pi", &[], NOW).unwrap().public.root;
        let (path, folder) = (file(dir.path()), folder(dir.path()));
        let whole = fs::read(&path).unwrap();
        let refused = || Authority::open(dir.path(), NOW).err().unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let said = refused().to_string();
        assert!(
            said.contains("is damaged; restore it") && said.contains(&format!("`rm -r {}`", folder.display())),
            "{said}"
        );
        assert!(matches!(PublicPart::read(dir.path()), Err(AuthorityError::Damaged(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            (refused(), PublicPart::read(dir.path())),
            (AuthorityError::Lost(_), Err(AuthorityError::Lost(_)))
        ));
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(refused(), AuthorityError::Store(StoreError::Exposed(_))));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(refused(), AuthorityError::Store(StoreError::Exposed(_))));
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        assert_eq!(Authority::open(dir.path(), NOW).unwrap().unwrap().public.root, root);
        assert!(Authority::create(dir.path(), "pi", &[], NOW).is_err(), "there is one");
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn an_authority_that_was_created_in_1970_is_valid_now() {
        let authority = Authority::new("pi", &[], Moment(60)).unwrap();
        assert!(authority.public.about.ends >= FLOOR.after(AUTHORITY_LIFE));
        authority.issue(&names(&["localhost"]), NOW).unwrap();
        authority.issue(&names(&["localhost"]), Moment(60)).unwrap();
    }

    #[test]
    fn nothing_outlives_the_authority() {
        let dir = private_folder();
        let authority = Authority::create(dir.path(), "pi", &[], NOW).unwrap();
        let end = authority.public.about.ends;
        let last = authority.issue(&names(&["localhost"]), Moment(end.0 - 60)).unwrap().0;
        assert_eq!(last.ends, end);
        assert!(matches!(Authority::open(dir.path(), end), Err(AuthorityError::Expired(_, _))));
    }
}
