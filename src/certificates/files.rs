//! A certificate in files that somebody else renews, such as certbot.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tracing::{error, info, warn};

use super::issued::{CertificateExpiry, Issued};
use crate::clock::Moment;
use crate::exit::{Exit, Failed};
use crate::guard;
use crate::net::tls::{self, ServerCertificate, TlsError};

/// How long before its end a certificate that has not been renewed is reported: two weeks, by when most have been renewed;
/// a quarter of its life if that is less.
const EXPIRES_SOON: u64 = 14 * 24 * 3600;

/// The identity of a file's content: its device, inode, size, and the times of its last change in seconds and
/// nanoseconds. Symlinks are followed, because certbot replaces those.
type Version = Option<[i64; 7]>;

/// A certificate and its key, and when they were read.
pub struct FileCertificate {
    pub tls: Arc<ServerConfig>,
    certificate: Arc<ServerCertificate>,
    chain: PathBuf,
    key: PathBuf,
    about: Option<Issued>,
    used: [Version; 2],
    /// The versions that cannot be used, which have been logged.
    failed: Option<[Version; 2]>,
    is_reported: bool,
}

impl FileCertificate {
    pub fn load(chain: &Path, key: &Path, now: Moment) -> Result<Self, Failed> {
        let used = versions(chain, key);
        let wrong = |error: TlsError| Failed::new(Exit::Config, error);
        let certificate = ServerCertificate::new(tls::certified_key(chain, key).map_err(wrong)?);
        let tls = tls::server_config(&certificate);
        let tls = tls.map_err(|error| wrong(TlsError::Unusable(chain.to_owned(), error)))?;
        let about = read(&certificate);
        let (chain, key) = (chain.to_owned(), key.to_owned());
        let mut loaded = Self { tls, certificate, chain, key, about, used, failed: None, is_reported: false };
        loaded.report(now);
        Ok(loaded)
    }

    pub fn is(&self, chain: &Path, key: &Path) -> bool {
        self.chain == chain && self.key == key
    }

    pub fn expiry(&self) -> Option<CertificateExpiry> {
        let about = self.about.as_ref()?;
        let advice = "renew it, and postkey reads it within a minute";
        Some(CertificateExpiry { file: self.chain.display().to_string(), ends: about.ends, soon: soon(about), advice })
    }

    /// Reads the files again if they have changed. As long as the new ones do not fit together, for example because only one of
    /// them has been written yet, the old ones stay in use.
    pub fn review(&mut self, now: Moment) {
        let found = versions(&self.chain, &self.key);
        if found != self.used {
            self.replace(found);
        }
        self.report(now);
    }

    fn replace(&mut self, found: [Version; 2]) {
        let shown = self.chain.display();
        match self.read() {
            Ok(certified) => {
                self.certificate.replace(certified);
                self.about = read(&self.certificate);
                (self.used, self.failed, self.is_reported) = (found, None, false);
                let ends = self.about.as_ref().map(|about| about.ends.to_string()).unwrap_or_default();
                info!(file = %shown, ends, "certificate {shown} reloaded; it expires on {ends}");
            }
            Err(error) => {
                if self.failed != Some(found) {
                    warn!(file = %shown, %error, "certificate {shown} has changed and cannot be used, the old one stays in use: {error}");
                }
                self.failed = Some(found);
            }
        }
    }

    fn read(&self) -> Result<tokio_rustls::rustls::sign::CertifiedKey, TlsError> {
        // The same checks as when the configuration was read.
        for path in [&self.chain, &self.key] {
            guard::readable(path).map_err(|error| TlsError::Unreadable(path.clone(), error))?;
        }
        tls::certified_key(&self.chain, &self.key)
    }

    /// Logs once that the certificate is about to expire.
    fn report(&mut self, now: Moment) {
        let Some(about) = self.about.as_ref().filter(|_| !self.is_reported) else { return };
        let (shown, ends, soon) = (self.chain.display(), about.ends, soon(about));
        if now >= ends {
            error!(file = %shown, %ends, "certificate {shown} expired on {ends}; renew it, and postkey reads it within a minute");
        } else if now.after(soon) >= ends {
            warn!(file = %shown, %ends, "certificate {shown} expires on {ends}; renew it, and postkey reads it within a minute");
        } else {
            return;
        }
        self.is_reported = true;
    }
}

fn soon(about: &Issued) -> u64 {
    EXPIRES_SOON.min(about.ends.since(about.begins) / 4)
}

fn read(certificate: &ServerCertificate) -> Option<Issued> {
    Issued::read(certificate.chain().first()?)
}

fn versions(chain: &Path, key: &Path) -> [Version; 2] {
    [chain, key].map(|path| {
        let about = std::fs::metadata(path).ok()?;
        let [device, inode, size] = [about.dev(), about.ino(), about.size()].map(u64::cast_signed);
        Some([device, inode, size, about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()])
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// The time when the certificates of these tests have half a year.
    const NOW: Moment = Moment(1_800_000_000);

    /// A new certificate and its key, PEM.
    fn pair() -> [String; 2] {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 7, 1));
        let key = KeyPair::generate().unwrap();
        [params.self_signed(&key).unwrap().pem(), key.serialize_pem()]
    }

    fn used(pair: &FileCertificate) -> Vec<u8> {
        pair.certificate.chain()[0].to_vec()
    }

    #[test]
    fn a_renewed_pair_is_used_and_half_of_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [chain, key] = ["chain.pem", "key.pem"].map(|name| dir.path().join(name));
        let write = |[certificate, private]: &[String; 2]| {
            fs::write(&chain, certificate).unwrap();
            fs::write(&key, private).unwrap();
        };
        let (first, second) = (pair(), pair());
        write(&first);
        let mut loaded = FileCertificate::load(&chain, &key, NOW).unwrap();
        let before = used(&loaded);
        loaded.review(NOW);
        assert_eq!(used(&loaded), before);
        for half in ["", "-----BEGIN CERTIFICATE-----\nabc", &second[0]] {
            fs::write(&chain, half).unwrap();
            loaded.review(NOW);
            assert!(used(&loaded) == before && loaded.failed.is_some(), "{half}");
        }
        fs::write(&key, &second[1]).unwrap();
        loaded.review(NOW);
        assert!(used(&loaded) != before && loaded.failed.is_none());
        fs::remove_file(&chain).unwrap();
        loaded.review(NOW);
        assert!(loaded.failed.is_some(), "it is missing");
        write(&second);
        loaded.review(NOW);
        assert!(loaded.failed.is_none());
    }

    /// As certbot does: live/ has symlinks to numbered files in archive/.
    #[test]
    fn a_replaced_symlink_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (number, [certificate, private]) in [("1", pair()), ("2", pair())] {
            fs::write(at("chain").with_extension(number), certificate).unwrap();
            fs::write(at("key").with_extension(number), private).unwrap();
        }
        let link = |name: &str, number: &str| {
            symlink(at(name).with_extension(number), at("new")).unwrap();
            fs::rename(at("new"), at(name)).unwrap();
        };
        link("chain", "1");
        link("key", "1");
        let mut loaded = FileCertificate::load(&at("chain"), &at("key"), NOW).unwrap();
        let before = used(&loaded);
        link("key", "2");
        loaded.review(NOW);
        assert!(used(&loaded) == before && loaded.failed.is_some(), "between the two links");
        link("chain", "2");
        loaded.review(NOW);
        assert!(used(&loaded) != before && loaded.failed.is_none());
    }

    #[test]
    fn a_certificate_that_nobody_renews_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let [chain, key] = ["chain.pem", "key.pem"].map(|name| dir.path().join(name));
        let [certificate, private] = pair();
        fs::write(&chain, &certificate).unwrap();
        fs::write(&key, private).unwrap();
        let end = FileCertificate::load(&chain, &key, NOW).unwrap().about.unwrap().ends;
        for (at, is_reported) in [(end.0 - EXPIRES_SOON - 1, false), (end.0 - EXPIRES_SOON, true), (end.0 + 1, true)] {
            let mut loaded = FileCertificate::load(&chain, &key, NOW).unwrap();
            loaded.review(Moment(at));
            assert_eq!(loaded.is_reported, is_reported);
        }
    }
}
