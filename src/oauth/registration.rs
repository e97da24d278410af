//! The client that requests tokens, and how it authenticates.

use serde_json::json;
use url::Url;

use super::jwt::SigningKey;
use super::{Failure, client_secret, source};
use crate::clock::Moment;
use crate::config::assertion::ClientKey;
use crate::config::client::{ClientAuthentication, ClientRegistration};
use crate::config::provider::{ClientMethods, Discovered};
use crate::config::secret_source::SecretSource;
use crate::secret::{Secret, Token};

/// A client registration at an authorization server, ready to request tokens.
#[derive(Clone)]
pub struct Registration {
    /// RFC 6749 section 2.2.
    pub client_id: String,
    pub proof: Proof,
    /// RFC 6749 section 3.2.
    pub token_endpoint: Url,
    /// Whether postkey registered this client itself.
    pub is_self_registered: bool,
    /// The client authentication methods in the server's metadata.
    pub methods: ClientMethods,
}

/// How a client authenticates.
#[derive(Clone)]
pub enum Proof {
    /// Not at all: it is a public client.
    None,
    /// RFC 6749 section 2.3.1.
    Secret(Secret),
    /// Signs an assertion for each request (RFC 7523 section 2.2).
    Key(SigningKey),
    /// Somebody else has signed the assertion.
    Assertion(Token),
}

/// How long our own assertion is valid, in seconds: long enough for clocks that differ.
const ASSERTION: u64 = 300;

/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl Registration {
    /// Reads the secrets that the client's authentication needs.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] if one cannot be read.
    pub async fn new(client: &ClientRegistration, token_endpoint: &Url) -> Result<Self, Failure> {
        let proof = match &client.authentication {
            ClientAuthentication::None => Proof::None,
            ClientAuthentication::Secret(source) => Proof::Secret(client_secret::read(source, &client.id).await?),
            ClientAuthentication::Key(key) => Proof::Key(signing_key(key).await?),
            ClientAuthentication::Assertion(source) => Proof::Assertion(assertion(source).await?),
        };
        let (client_id, token_endpoint) = (client.id.clone(), token_endpoint.clone());
        Ok(Self { client_id, proof, token_endpoint, is_self_registered: false, methods: ClientMethods::default() })
    }

    /// Adds what was discovered about the server and the client.
    pub fn discovered(self, discovered: Option<&Discovered>) -> Self {
        let Some(Discovered { is_registered, is_self_registered, methods, .. }) = discovered else { return self };
        Self { is_self_registered: *is_registered || *is_self_registered, methods: methods.clone(), ..self }
    }

    /// The parameters that authenticate the client in one request, besides its id. They are in the body, because many servers
    /// read a Basic header without the form decoding of RFC 6749 section 2.3.1.
    pub(super) fn authentication(&self, now: Moment) -> Result<Vec<(&'static str, String)>, Failure> {
        let assertion = match &self.proof {
            Proof::None => return Ok(Vec::new()),
            Proof::Secret(secret) => {
                let not_text = |_| Failure::Misconfigured("the client secret is not text".to_owned());
                let secret = std::str::from_utf8(secret.expose()).map_err(not_text)?;
                return Ok(vec![("client_secret", secret.to_owned())]);
            }
            Proof::Assertion(token) => token.expose().to_owned(),
            Proof::Key(key) => key.sign(&json!({
                "aud": self.token_endpoint,
                "iss": self.client_id,
                "sub": self.client_id,
                "jti": oauth2::CsrfToken::new_random().secret(),
                "nbf": now.0,
                "iat": now.0,
                "exp": now.after(ASSERTION).0,
            }))?,
        };
        Ok(vec![("client_assertion_type", ASSERTION_TYPE.to_owned()), ("client_assertion", assertion)])
    }

    /// The client's secret, if it has one.
    pub fn secret(&self) -> Option<&Secret> {
        if let Proof::Secret(secret) = &self.proof { Some(secret) } else { None }
    }
}

async fn signing_key(configured: &ClientKey) -> Result<SigningKey, Failure> {
    let (file, password) = source::read_key(&configured.key, "the client key").await?;
    let unusable =
        |why| Failure::Misconfigured(format!("the client key from {} cannot be used: {why}", configured.key.file));
    let key = SigningKey::read(&file, password.as_ref(), configured.algorithm).map_err(unusable)?;
    let Some(file) = &configured.certificate else { return Ok(key) };
    let unusable =
        |why| Failure::Misconfigured(format!("the client certificate in {} cannot be used: {why}", file.display()));
    let pem = tokio::fs::read(file).await.map_err(|error| unusable(error.to_string()))?;
    key.with_certificate(&pem).map_err(unusable)
}

async fn assertion(source: &SecretSource) -> Result<Token, Failure> {
    let secret = source::read(source, "the client assertion").await?;
    let token = std::str::from_utf8(secret.expose()).ok().and_then(Token::parse);
    token.ok_or_else(|| Failure::Misconfigured(format!("the content of {source} is not a client assertion")))
}
