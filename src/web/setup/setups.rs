//! The accounts that are being set up on the page, each with its progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use url::Url;

use super::form::SentForm;
use crate::control::LoginTest;
use crate::mutex::lock;
use crate::random;
use crate::vault::password::Password;

/// How long an authorization may take, as in `postkey authorize`.
pub const LONGEST: Duration = Duration::from_secs(600);

/// How long a request for the page waits for a result, so that a page without script shows it.
const WAIT: Duration = Duration::from_secs(20);

/// The maximum number of set-ups in memory, because a browser can begin any number.
const MOST: usize = 32;

#[derive(Default)]
pub struct Setups(Mutex<HashMap<String, Arc<AccountSetup>>>);

/// An account that is being set up.
pub struct AccountSetup {
    /// A random name in the path of its page.
    pub id: String,
    pub address: String,
    pub provider: String,
    /// The form with which it was begun, to show it again after a mistake.
    pub form: SentForm,
    /// The form key of the browser that began it. Other browsers cannot see it.
    owner: String,
    begun: Instant,
    progress: watch::Sender<SetupStep>,
    /// Sends an address that a person pasted to the task.
    pasted: mpsc::Sender<String>,
    /// Notes and warnings for the person.
    pub remarks: Arc<Mutex<Vec<String>>>,
    /// The first app password of a new account, until it is shown.
    pub password: Mutex<Option<Password>>,
    task: Mutex<Option<AbortHandle>>,
}

/// What a set-up is waiting for, or its result.
#[derive(Clone)]
pub enum SetupStep {
    /// A request is running.
    Working,
    /// A person has to sign in at this address.
    SignIn {
        url: Url,
        /// Whether postkey listens at the redirect URI. Otherwise the person pastes the address.
        is_awaited: bool,
        /// Why the last sign-in was rejected.
        complaint: Option<String>,
        /// Why the last address that was pasted was rejected.
        wrong_paste: Option<String>,
    },
    /// A person has to enter this code there, on any machine.
    EnterCode {
        code: String,
        url: Url,
        /// The address that already contains the code.
        complete: Option<Url>,
    },
    /// The account is set up. The provider's servers are tried one after the other.
    Done {
        /// The logins so far.
        tests: Vec<LoginTest>,
        is_complete: bool,
    },
    Failed {
        why: String,
    },
}

impl AccountSetup {
    pub fn step(&self) -> SetupStep {
        self.progress.borrow().clone()
    }

    /// Waits for a running request, within the limit for a page, and returns the step. With `is_entered`, it also waits for the
    /// provider to report that a person has entered the code.
    pub async fn settled_step(&self, is_entered: bool) -> SetupStep {
        let mut changes = self.changes();
        let is_settled = |step: &SetupStep| match step {
            SetupStep::Working => false,
            SetupStep::EnterCode { .. } => !is_entered,
            _ => true,
        };
        let _late = timeout(WAIT, changes.wait_for(is_settled)).await;
        self.step()
    }

    /// Follows the steps, beginning with the current one.
    pub fn changes(&self) -> watch::Receiver<SetupStep> {
        self.progress.subscribe()
    }

    pub fn set(&self, step: SetupStep) {
        self.progress.send_replace(step);
    }

    /// Passes on the address that a person pasted.
    pub fn paste(&self, text: String) {
        // If the channel is full, the task is still checking the address before.
        if self.pasted.try_send(text).is_ok() {
            self.set(SetupStep::Working);
        }
    }

    /// Aborts `task`, which runs this set-up, when the page is closed.
    pub fn run_by(&self, task: AbortHandle) {
        *lock(&self.task) = Some(task);
    }

    fn abort(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

/// After the page is closed, nobody could see the results.
impl Drop for Setups {
    fn drop(&mut self) {
        lock(&self.0).values().for_each(|setup| setup.abort());
    }
}

impl Setups {
    /// Begins a set-up for the browser with this form key. Returns it with the receiver of pasted addresses.
    pub fn begin(
        &self,
        owner: &str,
        address: &str,
        provider: &str,
        form: &SentForm,
        remarks: Arc<Mutex<Vec<String>>>,
    ) -> (Arc<AccountSetup>, mpsc::Receiver<String>) {
        let (pasted, arriving) = mpsc::channel(1);
        let setup = Arc::new(AccountSetup {
            id: random::name(),
            address: address.to_owned(),
            provider: provider.to_owned(),
            form: form.clone(),
            owner: owner.to_owned(),
            begun: Instant::now(),
            progress: watch::Sender::new(SetupStep::Working),
            pasted,
            remarks,
            password: Mutex::default(),
            task: Mutex::default(),
        });
        let mut all = lock(&self.0);
        all.extract_if(|_, one| one.begun.elapsed() > 2 * LONGEST).for_each(|(_, old)| old.abort());
        let oldest = all.values().min_by_key(|one| one.begun).filter(|_| all.len() >= MOST).map(|one| one.id.clone());
        if let Some(old) = oldest.and_then(|id| all.remove(&id)) {
            old.abort();
        }
        all.insert(setup.id.clone(), Arc::clone(&setup));
        (setup, arriving)
    }

    /// Returns the set-up with this name, if this browser began it.
    pub fn get(&self, id: &str, owner: &str) -> Option<Arc<AccountSetup>> {
        lock(&self.0).get(id).filter(|setup| setup.owner == owner).cloned()
    }
}
