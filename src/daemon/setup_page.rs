//! The page in the browser: opened and closed by commands, and closed when it is not used.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::control::{Control, ControlReply, ControlRequest, PendingRequest, reply};
use crate::exit::{Exit, Failed};
use crate::web::setup::SetupSite;

/// Opens and closes the page as `requests` say. `is_open` shows whether it is open. Never returns while the daemon runs.
pub async fn serve(control: Arc<Control>, mut requests: mpsc::Receiver<PendingRequest>, is_open: watch::Sender<bool>) {
    let mut site: Option<SetupSite> = None;
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(PendingRequest { request, outcome }) = request else { return };
                let reply = carry_out(request, &control, &mut site);
                // Before the reply, because the command that opens the page then waits until it is closed.
                is_open.send_replace(site.is_some());
                // The command may have ended.
                let _gone = outcome.send(reply);
            }
            () = ended(site.as_ref()) => {
                info!("the page in the browser is closed");
                if let Some(site) = site.take() {
                    site.close().await;
                }
                is_open.send_replace(false);
            }
        }
    }
}

fn carry_out(request: ControlRequest, control: &Arc<Control>, site: &mut Option<SetupSite>) -> ControlReply {
    match request {
        ControlRequest::OpenPage { users } => {
            let open = match site.take() {
                Some(open) => open,
                None => SetupSite::open(control, control.broker.config().web.as_ref())?,
            };
            let link = open.link(users);
            *site = Some(open);
            reply(link)
        }
        ControlRequest::ClosePage => reply(site.take().is_some()),
        _ => Err(Failed::new(Exit::Software, "this request is not about the page")),
    }
}

async fn ended(site: Option<&SetupSite>) {
    match site {
        Some(site) => site.ended().await,
        None => std::future::pending().await,
    }
}
