//! Who asks for tokens, and where.

use oauth2::basic::{BasicRevocationErrorResponse, BasicTokenIntrospectionResponse};
use oauth2::{AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, StandardRevocableToken, TokenUrl};
use url::Url;

use super::response::{ErrorBody, TokenBody};
use super::{Failure, source};
use crate::clock::Moment;
use crate::config::client::{Client, ClientAuthentication};
use crate::secret::Secret;

/// A client registration at an authorization server, ready to ask for tokens.
#[derive(Clone)]
pub struct Registration {
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// How the client shows who it is.
    pub proof: Proof,
    /// RFC 6749 section 3.2.
    pub token_endpoint: Url,
}

/// How a client shows who it is.
#[derive(Clone)]
pub enum Proof {
    /// It does not: a public client.
    None,
    /// RFC 6749 section 2.3.1; sent in the request's body.
    Secret(Secret),
}

/// The oauth2 crate's client, with the answers of [`super::response`].
type Requests = oauth2::Client<
    ErrorBody,
    TokenBody,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

impl Registration {
    /// Reads what the client's authentication needs.
    ///
    /// # Errors
    ///
    /// [`Failure::Misconfigured`] where a secret cannot be had.
    pub async fn new(client: &Client, token_endpoint: &Url) -> Result<Self, Failure> {
        let proof = match &client.authentication {
            ClientAuthentication::None => Proof::None,
            ClientAuthentication::Secret(place) => Proof::Secret(source::read(place, "the client secret").await?),
        };
        Ok(Self { client_id: client.id.clone(), proof, token_endpoint: token_endpoint.clone() })
    }

    /// All that says who the client is, for a request that the oauth2 crate does not know.
    pub(super) fn parameters(&self, _now: Moment) -> Result<Vec<(&'static str, String)>, Failure> {
        let mut parameters = vec![("client_id", self.client_id.clone())];
        if let Proof::Secret(secret) = &self.proof {
            let secret = std::str::from_utf8(secret.expose())
                .map_err(|_| Failure::Misconfigured("the client secret is not text".to_owned()))?;
            parameters.push(("client_secret", secret.to_owned()));
        }
        Ok(parameters)
    }

    /// Makes requests of this client.
    pub(super) fn requests(&self) -> Result<Requests, Failure> {
        let client = oauth2::Client::new(ClientId::new(self.client_id.clone()))
            // In the body, for many servers read a Basic header without the form decoding of RFC 6749 section 2.3.1.
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(TokenUrl::from_url(self.token_endpoint.clone()));
        let Proof::Secret(secret) = &self.proof else { return Ok(client) };
        let secret = std::str::from_utf8(secret.expose())
            .map_err(|_| Failure::Misconfigured("the client secret is not text".to_owned()))?;
        Ok(client.set_client_secret(ClientSecret::new(secret.to_owned())))
    }
}
