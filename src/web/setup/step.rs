//! The page of an account that is being set up: what to do next, and at the end the app password and the settings of a
//! mail program.

use std::convert::Infallible;
use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};

use super::adding::failed;
use super::entrance::{BrowserSession, OwnSession};
use super::field::Field;
use super::form::SentForm;
use super::qr::QrPicture;
use super::settings::ProgramSettings;
use super::setups::{AccountSetup, SetupStep};
use super::state::SetupState;
use super::view::{self, Shell};
use crate::control::LoginTest;
use crate::mutex::lock;

/// The page of a set-up that is waiting for a person or is complete.
#[derive(Template)]
#[template(path = "step.html")]
struct StepPage<'a> {
    shell: Shell,
    setup: &'a AccountSetup,
    remarks: Vec<String>,
    view: StepView,
}

enum StepView {
    Working,
    SignIn { url: String, host: String, is_awaited: bool, complaint: Option<String>, pasted: Field },
    EnterCode { code: String, url: String, complete: Option<String>, picture: Option<QrPicture> },
    Done(Box<DoneView>),
}

struct DoneView {
    path: String,
    /// The new app password, the first time that the page is shown.
    password: Option<String>,
    /// Whether one of the provider's servers has accepted the login.
    works: bool,
    settings: ProgramSettings,
}

/// The results of some logins.
#[derive(Template)]
#[template(path = "logins.html")]
struct LoginLines<'a> {
    tests: &'a [LoginTest],
}

/// The place of [`LoginLines`] in the page.
const LOGINS: &str = "<!-- logins -->";

/// The query of the link that says that the code has been entered.
const ENTERED: &str = "entered";

pub async fn show(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(setup) = site.setups.get(&id, &session.form_key) else {
        let why = "this set-up is over, or was begun in another browser";
        return view::failed(&Shell::new(&session, "add"), StatusCode::NOT_FOUND, "Not found", why, "/add");
    };
    let view = match setup.settled_step(query.as_deref() == Some(ENTERED)).await {
        SetupStep::Working => StepView::Working,
        SetupStep::SignIn { url, is_awaited, complaint, wrong_paste } => StepView::SignIn {
            host: url.host_str().unwrap_or_default().to_owned(),
            url: url.to_string(),
            is_awaited,
            pasted: Field::new("paste", "pasted", "Address of the last page").error(wrong_paste.as_deref()),
            complaint: complaint.as_deref().map(view::sentence),
        },
        SetupStep::EnterCode { code, url, complete } => StepView::EnterCode {
            picture: QrPicture::of(complete.as_ref().unwrap_or(&url).as_str()),
            code,
            url: url.to_string(),
            complete: complete.map(|url| url.to_string()),
        },
        SetupStep::Done { .. } => return show_logins(site, session, setup),
        SetupStep::Failed { why } => return failed(&site, &session, &setup, why),
    };
    view::shown(&StepPage::new(&session, &setup, view))
}

impl<'a> StepPage<'a> {
    fn new(session: &BrowserSession, setup: &'a AccountSetup, view: StepView) -> Self {
        Self { shell: Shell::new(session, "add"), setup, remarks: lock(&setup.remarks).clone(), view }
    }
}

/// Streams the page of an account that is set up: the part above the logins, each login when it ends, and the part below. This
/// needs no script and no reload. The app password is in the last part, so a connection that breaks earlier does not lose it.
fn show_logins(site: Arc<SetupState>, session: Arc<BrowserSession>, setup: Arc<AccountSetup>) -> Response {
    let results = stream::unfold((setup.changes(), 0), async |(mut changes, shown)| {
        let newer = |step: &SetupStep| match step {
            SetupStep::Done { tests, is_complete } => *is_complete || tests.len() > shown,
            _ => false,
        };
        let step = changes.wait_for(newer).await.ok()?.clone();
        let SetupStep::Done { tests, .. } = step else { return None };
        let tests = tests.get(shown..).filter(|new| !new.is_empty())?;
        Some((LoginLines { tests }.render().unwrap_or_default(), (changes, shown + tests.len())))
    });
    let (first_site, first_session, first_setup) = (Arc::clone(&site), Arc::clone(&session), Arc::clone(&setup));
    let top = async move {
        let (top, _) = halves(&first_site, &first_session, &first_setup, None).await;
        top
    };
    let bottom = async move {
        let password = lock(&setup.password).take().map(|first| String::from_utf8_lossy(&first.expose()).into_owned());
        let (_, bottom) = halves(&site, &session, &setup, password).await;
        bottom
    };
    let pieces = stream::once(top).chain(results).chain(stream::once(bottom));
    view::html(StatusCode::OK, Body::from_stream(pieces.map(Ok::<_, Infallible>)))
}

/// Renders the page of an account that is set up, split at the place of the logins.
async fn halves(
    site: &SetupState,
    session: &BrowserSession,
    setup: &AccountSetup,
    password: Option<String>,
) -> (String, String) {
    let works = match setup.step() {
        SetupStep::Done { tests, .. } => tests.iter().any(|test| test.refused.is_none()),
        _ => false,
    };
    let settings = ProgramSettings::of(site, session, &setup.address, password.as_deref()).await;
    let done = DoneView { path: view::account_path(&setup.address), works, settings, password };
    let page = StepPage::new(session, setup, StepView::Done(Box::new(done))).render().unwrap_or_default();
    page.split_once(LOGINS).map(|(top, bottom)| (top.to_owned(), bottom.to_owned())).unwrap_or_default()
}

pub async fn paste(
    State(site): State<Arc<SetupState>>,
    Extension(session): OwnSession,
    Path(id): Path<String>,
    Extension(form): Extension<SentForm>,
) -> Response {
    if let Some(setup) = site.setups.get(&id, &session.form_key) {
        setup.paste(form.text("pasted"));
    }
    view::see_other(&format!("/add/{id}"))
}
