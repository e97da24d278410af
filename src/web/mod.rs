//! What a browser sees of us.

pub mod redirect;
