//! The authorization of an account, shared by the command and the page in the browser.

mod chosen;
mod consent;
mod identity;
mod plan;
mod provider;
mod remark;
mod server;
mod unattended;

pub use chosen::ChosenOptions;
pub use consent::DeviceConsent;
pub use identity::SignInError;
pub use plan::{Plan, Redirect, account_address};
pub use provider::by_address;
pub use remark::{OnRemark, Remark};
