//! Assertions that postkey signs itself (RFC 7523): by whom, for whom, for how long.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use super::secret_source::SecretSource;

/// How a JSON Web Token is signed (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    const ALL: [Self; 2] = [Self::Ps256, Self::Rs256];

    /// Its name, in the configuration as in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm that this key names.
    pub(super) fn read(section: &mut Section<'_>, key: &'static str) -> Option<Self> {
        section.get(key)?.choice(&Self::ALL.map(|algorithm| (algorithm.name(), algorithm)))
    }
}

/// A client's own key (RFC 7523 section 2.2).
#[derive(Clone, Debug)]
pub struct ClientKey {
    /// The private key, PEM.
    pub key: SecretSource,
    /// The certificate by which the authorization server knows it, PEM; its thumbprint goes with each assertion.
    pub certificate: Option<PathBuf>,
    /// How it signs.
    pub algorithm: Algorithm,
}

/// Who speaks for the owners of mailboxes in the JWT bearer grant (RFC 7523 section 2.1).
#[derive(Clone, Debug)]
pub enum Bearer {
    /// The JSON file that Google makes for a service account's key.
    ServiceAccount(SecretSource),
    /// The same, one by one.
    Issuer(Issuer),
}

/// The issuer of the JWT bearer grant's assertions.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `iss`.
    pub name: String,
    /// `aud`; the token endpoint if it is left out.
    pub audience: Option<String>,
    /// `sub`; the mailbox if it is left out.
    pub subject: Option<String>,
    /// How long an assertion is good.
    pub lifetime: Duration,
    /// The private key, PEM.
    pub key: SecretSource,
    /// `kid`: which of the issuer's keys it is.
    pub key_id: Option<String>,
    /// How it signs.
    pub algorithm: Algorithm,
}

/// Google takes no longer one, and nobody is known to want it longer.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

impl Bearer {
    /// Where its key comes from.
    pub const fn source(&self) -> &SecretSource {
        match self {
            Self::ServiceAccount(source) => source,
            Self::Issuer(issuer) => &issuer.key,
        }
    }

    /// Reads `service_account` or the table `assertion`.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let service_account = section.get("service_account");
        let assertion = section.get("assertion");
        if let (Some(_), Some(value)) = (&service_account, &assertion) {
            value.mistake("says what service_account says; remove one of them");
        }
        match service_account {
            Some(value) => SecretSource::read(&value).map(Self::ServiceAccount),
            None => issuer(assertion?.section()?).map(Self::Issuer),
        }
    }
}

fn issuer(mut section: Section<'_>) -> Option<Issuer> {
    section.require(&["issuer", "key"]);
    let (name, key) = (section.text("issuer"), section.get("key"));
    let lifetime = section.get("lifetime").and_then(|value| value.parse(lifetime));
    let (audience, subject, key_id) = (section.text("audience"), section.text("subject"), section.text("key_id"));
    let algorithm = Algorithm::read(&mut section, "algorithm");
    section.finish();
    Some(Issuer {
        name: name?,
        audience,
        subject,
        lifetime: lifetime.unwrap_or(LONGEST_LIFETIME),
        key: SecretSource::read(&key?)?,
        key_id,
        // What Google takes.
        algorithm: algorithm.unwrap_or(Algorithm::Rs256),
    })
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok();
    let time = time.filter(|time| (Duration::from_secs(60)..=LONGEST_LIFETIME).contains(time));
    time.ok_or_else(|| "must be a time from \"1m\" to \"1h\"".to_owned())
}
