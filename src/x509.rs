//! X.509 certificates, as far as postkey reads them itself.

use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::clock::Moment;

/// When a certificate in DER expires: `notAfter` (RFC 5280 section 4.1.2.5). None if it is not a certificate.
pub fn expiry(certificate: &[u8]) -> Option<Moment> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(Moment(certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs()))
}
