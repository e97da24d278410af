//! The logins of mail programs as they come (server-sent events).

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};

use super::state::SetupState;

/// Sends every login from now on, as JSON. The browser reconnects when the connection ends.
pub async fn logins(State(site): State<Arc<SetupState>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = site.control.broker.journal.newest();
    let seen = *changes.borrow();
    let broker = Arc::clone(&site.control.broker);
    let logins = stream::unfold((broker, changes, seen), async |(broker, mut changes, seen)| {
        let newest = *changes.wait_for(|newest| *newest > seen).await.ok()?;
        let logins = serde_json::to_string(&broker.journal.after(seen)).ok()?;
        Some((Ok(Event::default().data(logins)), (broker, changes, newest)))
    });
    Sse::new(logins).keep_alive(KeepAlive::default())
}
