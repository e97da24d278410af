//! What a browser sees of us.

pub mod first_login;
pub mod monitoring;
pub mod redirect;
