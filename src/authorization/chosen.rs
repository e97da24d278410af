//! The options of an authorization.

use std::net::SocketAddr;

use crate::config::client::ClientRegistration;
use crate::config::flow::Flow;

/// The options that a person has chosen. The configuration and the provider supply the rest.
#[derive(Default)]
pub struct ChosenOptions {
    pub flow: Option<Flow>,
    pub client: Option<ClientRegistration>,
    pub redirect_uri: Option<url::Url>,
    pub redirect_listen: Option<SocketAddr>,
    /// The address of the person who signs in.
    pub signs_in: Option<String>,
}
