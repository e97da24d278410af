//! `proxy` and its login, for all providers or for one.

use std::path::PathBuf;

use url::{Host, Url};

use super::reader::{Section, Value};
use super::secret_source;
use crate::config::provider::{ProxyConfig, ProxyKind};
use crate::config::secret_source::SecretSource;

/// The proxy of a table. None if there is no `proxy` in it, Some(None) if that is `none`.
pub fn read(section: &mut Section<'_>) -> Option<Option<ProxyConfig>> {
    let proxy = section.get("proxy").map(|value| value.parse(proxy).flatten());
    let user = section.get("proxy_user");
    let password = section.get("proxy_password");
    let missing = match (&proxy, &user, &password) {
        (None | Some(None), Some(stray), _) | (None | Some(None), None, Some(stray)) => {
            stray.absence("has no effect without proxy; add proxy, or remove this");
            return proxy;
        }
        (_, Some(_), None) => &["proxy_password"][..],
        (_, None, Some(_)) => &["proxy_user"],
        _ => &[],
    };
    section.require(missing);
    let user = user.and_then(|value| value.parse(user_name));
    let login = user.zip(password.and_then(|value| file(&value)));
    proxy.map(|proxy| proxy.map(|proxy| ProxyConfig { login, ..proxy }))
}

fn file(value: &Value<'_>) -> Option<PathBuf> {
    match secret_source::read(value)? {
        SecretSource::File(path) => Some(path),
        _ => {
            value.mistake("must be in a file; write { file = \"proxy.password\" }");
            None
        }
    }
}

/// `http://HOST:PORT`, `socks5://HOST:PORT` or `none`.
fn proxy(text: &str) -> Result<Option<ProxyConfig>, String> {
    let form = "must be \"none\", or a proxy such as \"http://proxy.example.test:3128\" or \"socks5://127.0.0.1:1080\"";
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let url = Url::parse(text).map_err(|_| form.to_owned())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a login; write it to proxy_user and to the file of proxy_password".to_owned());
    }
    let (kind, usual) = match url.scheme() {
        "http" => (ProxyKind::Http, 80),
        // RFC 1928 section 3.
        "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
        _ => return Err(form.to_owned()),
    };
    let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => return Err(form.to_owned()),
    };
    if has_more {
        return Err(form.to_owned());
    }
    Ok(Some(ProxyConfig { kind, host, port: url.port().unwrap_or(usual), login: None }))
}

/// Reads a user name that RFC 1929 section 2 and RFC 7617 section 2 allow.
fn user_name(text: &str) -> Result<String, String> {
    match text.len() <= 255 && !text.contains(':') {
        true => Ok(text.to_owned()),
        false => Err("must have at most 255 bytes and no colon".to_owned()),
    }
}
