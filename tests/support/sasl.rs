//! XOAUTH2 and OAUTHBEARER as a server sees them (RFC 7628; XOAUTH2 as Google describes it).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::Mechanism;
use tokio::io;

use super::connection::Connection;
use super::{Attempt, MailServer, lock};

/// How an exchange ended.
pub enum Outcome {
    /// The owner of this mailbox is logged in.
    Accepted(String),
    /// The token does not open the mailbox; the client has seen the error challenge and answered it.
    Denied,
    /// A test wants this answer, in the protocol's own words.
    Refused(String),
    /// The client has sent something that is not SASL; why.
    Malformed(&'static str),
}

/// One exchange. `prompt` begins the server's lines in it: `+ ` in IMAP and POP3, `334 ` in SMTP.
pub async fn exchange(
    connection: &mut Connection,
    mechanism: Mechanism,
    initial: Option<&str>,
    prompt: &str,
) -> io::Result<Outcome> {
    let response = match initial {
        Some(response) => response.to_owned(),
        None => {
            connection.reply(prompt).await?;
            connection.line().await?
        }
    };
    let settings = connection.settings();
    let decoded = decode(mechanism, &response);
    let user = decoded.as_ref().map(|(user, _)| user.to_lowercase()).unwrap_or_default();
    let sent = decoded.as_ref().map(|(_, token)| token.clone()).unwrap_or_default();
    let holder = decoded.filter(|_| is_served(&settings, mechanism)).and_then(|(_, token)| {
        let grants = lock(&connection.service.grants);
        let holder = grants.holder(&token)?;
        (holder == user || connection.service.is_shared(&user, holder, connection.protocol)).then(|| user.clone())
    });
    let attempt = Attempt { protocol: connection.protocol, mechanism, user, accepted: holder.is_some() };
    lock(&connection.service.log).attempts.push(attempt);
    tokio::time::sleep(settings.login_delay).await;
    if let Some(holder) = holder {
        return Ok(Outcome::Accepted(holder));
    }
    if let Some(text) = settings.refuse_login.or(settings.denial) {
        return Ok(Outcome::Refused(text.replace("{token}", &sent)));
    }
    match response.as_str() {
        "*" => Ok(Outcome::Malformed("cancelled")),
        text if BASE64_STANDARD.decode(text).is_err() => Ok(Outcome::Malformed("the response is not base64")),
        _ => challenge(connection, mechanism, prompt).await,
    }
}

fn is_served(settings: &MailServer, mechanism: Mechanism) -> bool {
    settings.refuse_login.is_none() && !settings.broken.contains(&mechanism)
}

/// Sends the error challenge and reads its answer: an empty line for XOAUTH2, a 0x01 for OAUTHBEARER.
async fn challenge(connection: &mut Connection, mechanism: Mechanism, prompt: &str) -> io::Result<Outcome> {
    let (error, wanted) = match mechanism {
        Mechanism::XOAuth2 => (r#"{"status":"401","schemes":"bearer","scope":"mail"}"#, ""),
        Mechanism::OAuthBearer => (r#"{"status":"invalid_token","scope":"mail"}"#, "AQ=="),
    };
    connection.reply(&format!("{prompt}{}", BASE64_STANDARD.encode(error))).await?;
    match connection.line().await? == wanted {
        true => Ok(Outcome::Denied),
        false => Ok(Outcome::Malformed("not the answer to an error challenge")),
    }
}

/// The user and the token in a response.
fn decode(mechanism: Mechanism, response: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64_STANDARD.decode(response).ok()?).ok()?;
    let fields: Vec<_> = text.strip_suffix("\u{1}\u{1}")?.split('\u{1}').collect();
    let (first, rest) = fields.split_first()?;
    let user = match mechanism {
        Mechanism::XOAuth2 => first.strip_prefix("user=")?.to_owned(),
        Mechanism::OAuthBearer => saslname(first.strip_prefix("n,a=")?.strip_suffix(',')?)?,
    };
    let token = match (mechanism, rest) {
        (_, [auth]) => auth.strip_prefix("auth=Bearer ")?,
        (Mechanism::OAuthBearer, [host, port, auth]) if host.starts_with("host=") && port.starts_with("port=") => {
            auth.strip_prefix("auth=Bearer ")?
        }
        _ => return None,
    };
    Some((user, token.to_owned()))
}

/// Removes the escapes of a name (RFC 5801 section 4).
fn saslname(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) =
            [(',', "2C"), ('=', "3D")].iter().find_map(|(sign, code)| Some((sign, part.strip_prefix(code)?)))?;
        name.push(*sign);
        name.push_str(rest);
    }
    (!escaped.contains(',')).then_some(name)
}
