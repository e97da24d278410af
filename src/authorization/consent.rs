//! The grants in which a person consents: authorization code and device code.

use oauth2::AuthorizationCode;
use url::Url;

use super::identity::SignInError;
use super::plan::Plan;
use super::server::no_tokens;
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::oauth::authorization_code::{AuthorizationParameters, PendingAuthorization};
use crate::oauth::device_code::DeviceAuthorization;
use crate::token::TokenSet;

/// A code that a person has to enter on another device.
pub struct DeviceConsent(pub DeviceAuthorization);

impl Plan {
    /// Creates a new authorization request, after which the browser returns to `redirect_uri`.
    pub fn begin(&self, redirect_uri: &Url) -> Result<PendingAuthorization, Failed> {
        let missing = || {
            Failed::new(
                Exit::Config,
                "the authorization server's metadata has no authorization endpoint; set `authorization_endpoint`",
            )
        };
        let provider = &self.connector.provider;
        Ok(PendingAuthorization::begin(&AuthorizationParameters {
            endpoint: self.server.endpoints.authorization.as_ref().ok_or_else(missing)?,
            issuer: provider.issuer.as_deref(),
            names_itself: self.server.names_itself,
            client_id: &self.registration.client_id,
            redirect_uri,
            scope: &self.server.scope,
            parameters: &self.parameters,
            login_hint: &self.signs_in,
        }))
    }

    /// Exchanges an authorization code for tokens, and checks whose they are.
    pub async fn exchange(
        &self,
        pending: PendingAuthorization,
        code: AuthorizationCode,
    ) -> Result<TokenSet, SignInError> {
        let granted = pending.exchange(&self.connector.http, &self.registration, code, &Clock::System).await;
        self.accept(granted.map_err(|failure| no_tokens(&failure))?).await
    }

    /// Asks the authorization server for a code that a person enters on another device.
    pub async fn begin_on_device(&self) -> Result<DeviceConsent, Failed> {
        let provider = &self.connector.provider;
        let endpoint = self.server.endpoints.device().ok_or_else(|| {
            let why = format!(
                "the provider {} has no device_authorization_endpoint; set it, or use another grant",
                provider.name
            );
            Failed::new(Exit::Config, why)
        })?;
        let (http, registration) = (&self.connector.http, &self.registration);
        let pending = DeviceAuthorization::begin(http, registration, &endpoint, &self.server.scope, &Clock::System);
        pending.await.map(DeviceConsent).map_err(|failure| no_tokens(&failure))
    }

    /// Waits until the person has entered the code, and checks whose tokens they are.
    pub async fn await_device(&self, DeviceConsent(pending): &DeviceConsent) -> Result<TokenSet, SignInError> {
        let granted = pending.tokens(&self.connector.http, &self.registration, &Clock::System).await;
        self.accept(granted.map_err(|failure| no_tokens(&failure))?).await
    }
}
