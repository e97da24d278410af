//! Requests to an authorization server, and what it answers.

pub mod access_token;
pub mod authorization_code;
pub mod certificate;
mod client_secret;
pub mod device_code;
pub mod discovery;
mod error_codes;
mod errors;
mod failure;
pub mod grant;
mod http;
pub mod id_token;
pub mod identity;
mod jwt;
mod jwt_bearer;
mod keys;
pub mod lasting;
mod members;
#[cfg(not(fuzzing))]
mod outcome;
#[cfg(fuzzing)]
pub mod outcome;
mod private_key;
pub mod refresh;
mod registration;
mod request;
pub mod revocation;
pub mod self_registration;
pub mod source;
pub mod tenant;

pub use failure::{Failure, TemporaryCause};
pub use http::Http;
pub use outcome::Granted;
pub use registration::{Proof, Registration};
