//! Notes and warnings for the person who sets up an account.

use std::sync::Arc;

pub enum Remark {
    Note(String),
    /// Something works, but not as it should.
    Warning(String),
}

/// Shows a remark on the terminal or on a page.
pub type OnRemark = Arc<dyn Fn(Remark) + Send + Sync>;
