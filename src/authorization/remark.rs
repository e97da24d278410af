//! What a person is told while an account is set up.

use std::sync::Arc;

pub enum Remark {
    Note(String),
    /// Something works, but less well than it should.
    Warning(String),
}

/// Tells the person who sets an account up, on the terminal or on a page.
pub type Tell = Arc<dyn Fn(Remark) + Send + Sync>;
