//! What a browser sees of us.

pub mod monitoring;
pub mod redirect;
