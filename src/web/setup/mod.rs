//! The pages on which a person sets up postkey in a browser. They serve only browsers that opened a link of `postkey web`, and
//! carry out the same requests as the commands.

mod account;
mod account_forms;
mod adding;
mod configuration;
mod entrance;
mod events;
mod field;
mod form;
mod gate;
mod hosts;
mod overview;
mod qr;
mod registration;
mod settings;
mod setups;
mod sign_in;
mod state;
mod step;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio::time::timeout;

use super::page::STYLE;
use super::server::{CONNECTIONS, HttpServer};
use crate::address::Address;
use crate::control::Control;
use crate::exit::{Exit, Failed};
use crate::net::listen::{self, Bound};
use crate::net::strangers::Strangers;
use crate::net::unix::{self, SocketFile};
use entrance::OwnSession;
use hosts::OwnHosts;
use state::SetupState;

/// How long to wait for the last answers. The live events do not end by themselves.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// The port that a link through a tunnel to a Unix socket names.
const TUNNEL: u16 = 8143;

/// The open pages. Dropping this closes them.
pub struct SetupSite {
    state: Arc<SetupState>,
    /// The beginning of all addresses.
    base: String,
    server: HttpServer,
    _file: Option<SocketFile>,
}

impl SetupSite {
    /// Opens the pages at `place`, or at any free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Fails if the port or the socket cannot be bound.
    pub fn open(control: &Arc<Control>, place: Option<&Address>) -> Result<Self, Failed> {
        let any = Address::Tcp(([127, 0, 0, 1], 0).into());
        let place = place.unwrap_or(&any);
        let failed = |error| Failed::new(Exit::Os, format!("cannot open the page at {place}: {error}"));
        let (socket, file) = bind(place).map_err(failed)?;
        let (base, hosts) = match socket.port() {
            Some(address) => {
                let hosts = [address.to_string(), format!("localhost:{}", address.port())];
                (format!("http://{address}"), OwnHosts::Exactly(hosts.into()))
            }
            None => (format!("http://localhost:{TUNNEL}"), OwnHosts::LocalAtAnyPort),
        };
        let state = Arc::new(SetupState::new(Arc::clone(control), hosts));
        let server = HttpServer::new(vec![socket], &router(&state), &Strangers::new(CONNECTIONS, 0));
        Ok(Self { state, base, server, _file: file })
    }

    /// Makes a link that is good once, for browsers of these users.
    pub fn link(&self, users: Vec<u32>) -> String {
        self.state.touch();
        format!("{}/enter/{}", self.base, self.state.entrance.link(users))
    }

    /// Returns after a request to close the pages, or after half an hour without use.
    pub async fn ended(&self) {
        self.state.ended().await;
    }

    /// Closes the pages after the last answers.
    pub async fn close(self) {
        let _late = timeout(LAST_ANSWER, self.server.finish()).await;
    }
}

fn bind(place: &Address) -> std::io::Result<(Bound, Option<SocketFile>)> {
    match place {
        Address::Tcp(address) => Ok((Bound::Tcp(listen::bind(*address)?), None)),
        Address::Unix(path) => {
            let socket = unix::bind(path, 0o600)?;
            Ok((Bound::Unix(socket), Some(SocketFile::of(path)?)))
        }
    }
}

fn router(state: &Arc<SetupState>) -> Router {
    Router::new()
        .route("/", get(overview::show))
        .route("/style.css", get(async || view::file("text/css; charset=utf-8", STYLE)))
        .route(
            "/script.js",
            get(async || view::file("text/javascript; charset=utf-8", include_str!("../pages/script.js"))),
        )
        .route(gate::EVENTS, get(events::logins))
        .route("/add", get(adding::show).post(adding::begin))
        .route("/add/{setup}", get(step::show))
        .route("/add/{setup}/paste", post(step::paste))
        .route("/accounts/{address}", get(account::show))
        .route("/accounts/{address}/passwords", post(account_forms::add_password))
        .route("/accounts/{address}/passwords/remove", post(account_forms::remove_password))
        .route("/accounts/{address}/test", post(account_forms::test))
        .route("/accounts/{address}/doctor", post(account_forms::doctor))
        .route("/accounts/{address}/sign-in", post(adding::sign_in_again))
        .route("/accounts/{address}/forget", post(account_forms::forget))
        .route("/accounts/{address}/settings", get(settings::show))
        .route("/accounts/{address}/settings/file", post(settings::download))
        .route("/providers/{name}", get(configuration::provider))
        .route("/configuration", get(configuration::show))
        .route("/close", post(close))
        .fallback(missing)
        .layer(from_fn_with_state(Arc::clone(state), gate::pass))
        .with_state(Arc::clone(state))
}

async fn close(State(site): State<Arc<SetupState>>) -> Response {
    site.close();
    view::closed(StatusCode::OK)
}

async fn missing(Extension(session): OwnSession) -> Response {
    let shell = view::Shell::new(&session, "");
    let why = "postkey has no such page";
    view::failed(&shell, StatusCode::NOT_FOUND, "Not found", why, "/")
}
