//! The client's secret as providers give it: alone, or in a file that their console offers for download.

use serde_json::Value;

use super::{Failure, source};
use crate::config::secret_source::SecretSource;
use crate::secret::Secret;
use crate::wire::printable;

/// The secret and its client in such files: a flat object, Google's desktop and web applications, and Keycloak's adapter
/// configuration.
const PLACES: [(&str, &str); 4] = [
    ("/client_secret", "/client_id"),
    ("/installed/client_secret", "/installed/client_id"),
    ("/web/client_secret", "/web/client_id"),
    ("/credentials/secret", "/resource"),
];

/// Reads the secret of this client.
///
/// # Errors
///
/// [`Failure::Misconfigured`] says what is there instead of a secret.
pub async fn read(source: &SecretSource, client_id: &str) -> Result<Secret, Failure> {
    let what = "the client secret";
    let file = source::read(source, what).await?;
    let secret = find(file.expose(), client_id).map_err(|why| source::unreadable(source, what, &why))?;
    Ok(secret.map_or(file, Secret::new))
}

/// The secret in a file; None if the file is the secret itself.
fn find(file: &[u8], client_id: &str) -> Result<Option<Vec<u8>>, String> {
    let text = file.trim_ascii();
    if text.starts_with(b"{") && text.contains(&b'"') {
        // The parser's own words could quote the secret.
        let json = serde_json::from_slice(text).map_err(|_| "it begins like JSON but is damaged; download it again")?;
        return in_json(&json, client_id).map(Some);
    }
    match text {
        _ if text.starts_with(b"-----BEGIN ") => {
            Err("it is a key or a certificate (PEM), not a secret; a key belongs to client_key".to_owned())
        }
        _ if text.contains(&0) => Err("it contains zero bytes; save it as text in UTF-8".to_owned()),
        _ if text.contains(&b'\n') => Err("it has several lines; leave only the secret in it".to_owned()),
        _ => Ok(None),
    }
}

fn in_json(json: &Value, client_id: &str) -> Result<Vec<u8>, String> {
    let text = |place: &str| json.pointer(place).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let found = PLACES.iter().find_map(|(secret, client)| Some((text(secret)?, text(client))));
    match found {
        Some((_, Some(other))) if other != client_id => {
            Err(format!("it belongs to the client {}, but client_id is {}", printable(other), printable(client_id)))
        }
        Some((secret, _)) => Ok(secret.as_bytes().to_vec()),
        None if text("/type") == Some("service_account") => {
            Err("it is the key of a service account, not a client's secret; it belongs to service_account".to_owned())
        }
        None => {
            let names = json.as_object().into_iter().flat_map(|object| object.keys());
            let names = names.map(|name| printable(name)).collect::<Vec<_>>().join(", ");
            Err(format!("it is JSON without a client_secret; it has {names}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1234.apps.example.test";

    fn found(file: &str) -> Result<Option<String>, String> {
        let found = find(file.as_bytes(), ID)?;
        Ok(found.map(|secret| String::from_utf8(secret).unwrap()))
    }

    #[test]
    fn a_secret_is_found_in_every_file_that_consoles_offer() {
        let google = format!(
            r#"{{"KIND":{{"client_id":"{ID}","project_id":"mail","auth_uri":"https://a.test","client_secret":"hush","redirect_uris":["http://localhost"]}}}}"#
        );
        let keycloak = format!(
            r#"{{"realm": "r", "auth-server-url": "https://a.test", "resource": "{ID}", "credentials": {{"secret": "hush"}}}}"#
        );
        for file in [
            google.replace("KIND", "installed"),
            google.replace("KIND", "web"),
            format!(" {}\r\n", google.replace(',', ",\r\n  ")).replace("KIND", "web"),
            r#"{"client_secret": "hush"}"#.to_owned(),
            format!(r#"{{"client_id":"{ID}","client_secret":" hush\n"}}"#),
            keycloak,
        ] {
            assert_eq!(found(&file), Ok(Some("hush".to_owned())), "{file}");
        }
        for secret in ["hush", "GOCSPX-a_b~c.d", "{hush", "{}", "hu sh", "\"hush\"", "-----", "ä"] {
            assert_eq!(found(secret), Ok(None), "{secret} is a secret");
        }
    }

    #[test]
    fn a_file_without_a_secret_is_explained() {
        for (file, why) in [
            (
                r#"{"installed":{"client_id":"another","client_secret":"hush"}}"#,
                "belongs to the client another, but client_id is",
            ),
            (r#"{"type":"service_account","private_key":"-----BEGIN"}"#, "service_account"),
            (r#"{"access_token":"hush","expires_in":1}"#, "it has access_token, expires_in"),
            (r#"{"installed":{"client_id":"#, "download it again"),
            (r#"{"client_secret":""}"#, "without a client_secret"),
            ("-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----", "client_key"),
            ("h\0u\0s\0h\0", "UTF-8"),
            ("client\nhush", "several lines"),
        ] {
            let error = found(file).unwrap_err();
            assert!(error.contains(why) && !error.contains("hush"), "{error}");
        }
    }
}
