//! The authorization of an account, shared by the command and the page in the browser.

mod consent;
mod identity;
mod plan;
mod provider;
mod remark;
mod server;
mod unattended;
mod wishes;

pub use consent::DeviceConsent;
pub use identity::SignInError;
pub use plan::{Plan, Redirect, account_address};
pub use provider::by_address;
pub use remark::{Remark, Tell};
pub use wishes::Wishes;
