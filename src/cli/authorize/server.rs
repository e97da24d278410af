//! What there is to find out about an authorization server: its endpoints, and who postkey is there.

use super::super::AuthorizeOptions;
use super::super::terminal::say;
use super::no_tokens;
use crate::broker::Reach;
use crate::config::Config;
use crate::config::client::{Client, ClientAuthentication};
use crate::config::flow::Flow;
use crate::config::provider::{Discovered, Endpoints, Provider};
use crate::config::secret_source::SecretSource;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::oauth::discovery::{Metadata, discover};
use crate::oauth::self_registration::{is_known, register};

/// An authorization server, and postkey's place there.
pub struct Server {
    /// Those of the configuration, and what they lack from the metadata.
    pub endpoints: Endpoints,
    /// Whether it promises to name itself when the browser returns (RFC 9207 section 3).
    pub names_itself: bool,
    /// Who postkey is there.
    pub client: Client,
    /// Whether the client is the account's own, and is to be kept with it.
    pub is_own_client: bool,
    /// What is to be kept of what was found out.
    pub discovered: Option<Discovered>,
}

/// For whom, and how.
pub struct Wanted<'a> {
    pub config: &'a Config,
    pub address: &'a str,
    pub options: &'a AuthorizeOptions,
    pub flow: Flow,
    pub status: &'a Status,
    pub redirect_uri: &'a url::Url,
}

impl Server {
    /// Finds out what the configuration leaves out.
    pub async fn find(reach: &Reach, wanted: &Wanted<'_>) -> Result<Self, Failed> {
        let (provider, configured) = (&reach.provider, wanted.client(&reach.provider));
        let metadata = metadata(reach, wanted.flow, configured.is_some()).await?;
        let endpoints =
            provider.endpoints.or(metadata.as_ref().map_or(&Endpoints::default(), |found| &found.endpoints));
        let (client, registered) = match configured {
            Some(client) => (client, None),
            None => wanted.register(reach, &endpoints).await.map(|(client, shared)| (client, Some(shared)))?,
        };
        let discovered = (metadata.is_some() || registered.is_some()).then(|| Discovered {
            issuer: name(provider, &endpoints),
            endpoints: metadata.as_ref().map(|found| found.endpoints.clone()).unwrap_or_default(),
            is_registered: registered == Some(true),
        });
        let is_own_client = wanted.options.client_id.is_some() || registered.is_some();
        let names_itself = metadata.is_some_and(|found| found.names_itself);
        Ok(Self { endpoints, names_itself, client, is_own_client, discovered })
    }
}

/// The metadata, where something has to be found there. Where they only say how id_tokens are signed, they may be missing.
async fn metadata(reach: &Reach, flow: Flow, has_client: bool) -> Result<Option<Metadata>, Failed> {
    let (provider, known) = (&reach.provider, &reach.provider.endpoints);
    let Some(issuer) = &provider.issuer else { return Ok(None) };
    let is_usable = known.token.is_some()
        && (known.authorization.is_some() || flow != Flow::AuthorizationCode)
        && (known.device().is_some() || flow != Flow::DeviceCode);
    let may_sign_in = has_client || known.registration.is_some();
    let tells_who = known.jwks.is_some() || !provider.scope.iter().any(|scope| scope == "openid");
    if is_usable && (tells_who || !may_sign_in) {
        return Ok(None);
    }
    match discover(&reach.http, issuer).await {
        Ok(metadata) => Ok(Some(metadata)),
        Err(_) if is_usable => Ok(None),
        Err(error) => {
            let text = format!("the endpoints of {} cannot be found out: {error}", provider.name);
            Err(Failed::new(Exit::Unavailable, text))
        }
    }
}

/// By what a registration is found again: the issuer, or the place of the registration.
fn name(provider: &Provider, endpoints: &Endpoints) -> String {
    let place = endpoints.registration.as_ref().map(ToString::to_string);
    provider.issuer.clone().or(place).unwrap_or_default()
}

impl Wanted<'_> {
    /// The client registration that somebody has made: the command line's, or the configuration's for this account or its
    /// provider.
    fn client(&self, provider: &Provider) -> Option<Client> {
        let nobody = (self.flow == Flow::JwtBearer).then(Client::nobody);
        let Some(id) = &self.options.client_id else {
            return self.config.client_for(self.address, provider).or(nobody);
        };
        let secret = self.options.client_secret_file.clone().map(SecretSource::File);
        let authentication = secret.map_or(ClientAuthentication::None, ClientAuthentication::Secret);
        Some(Client { id: id.clone(), authentication })
    }

    /// The client by which postkey has registered itself, or does so now; and whether other accounts can use it, too.
    async fn register(&self, reach: &Reach, endpoints: &Endpoints) -> Result<(Client, bool), Failed> {
        let provider = &reach.provider;
        let Some(endpoint) = &endpoints.registration else { return Err(no_client(provider)) };
        let public = |id: String| Client { id, authentication: ClientAuthentication::None };
        let is_usual = *self.redirect_uri == provider.redirect_uri;
        let kept = self.status.registered.get(&name(provider, endpoints)).filter(|_| is_usual);
        if let (Some(id), Some(token)) = (kept, &endpoints.token)
            && is_known(&reach.http, token, id, self.redirect_uri).await
        {
            return Ok((public(id.clone()), true));
        }
        let registered = register(&reach.http, endpoint, self.redirect_uri, self.flow, &provider.scope).await;
        let registered = registered.map_err(|failure| no_tokens(&failure))?;
        say(format_args!("postkey has registered itself with {}, as {}.\n", provider.name, registered.client_id));
        Ok(match registered.client_secret {
            Some(secret) => {
                let authentication = ClientAuthentication::Secret(SecretSource::Text(secret));
                (Client { id: registered.client_id, authentication }, false)
            }
            None => (public(registered.client_id), is_usual),
        })
    }
}

fn no_client(provider: &Provider) -> Failed {
    let note = provider.note.as_deref().unwrap_or_default();
    let message = format!(
        "{} asks for a client registration of your own: get a client id there, then add --client-id ID. {note}",
        provider.name
    );
    Failed::new(Exit::Config, message)
}
