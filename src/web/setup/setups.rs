//! The accounts that are being set up on the page, each with its progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::control::LoginTest;
use crate::mutex::lock;
use crate::random;
use crate::vault::password::Password;

/// How long an authorization may take, as in `postkey authorize`.
pub const LONGEST: Duration = Duration::from_secs(600);

/// How long a request for the page waits for the end of what runs, so that a page without script shows it.
const WAIT: Duration = Duration::from_secs(20);

/// The most that are kept, because a browser can begin many.
const MOST: usize = 32;

#[derive(Default)]
pub struct Setups(Mutex<HashMap<String, Arc<AccountSetup>>>);

/// An account that is being set up.
pub struct AccountSetup {
    /// A random name, which is in its page's path.
    pub id: String,
    pub address: String,
    pub provider: String,
    /// The form key of the browser that has begun it. Other browsers do not see it.
    owner: String,
    begun: Instant,
    progress: watch::Sender<SetupStep>,
    /// What a person has pasted.
    pasted: mpsc::Sender<String>,
    /// What the person was told meanwhile.
    pub remarks: Arc<Mutex<Vec<String>>>,
    /// The first app password of a new account, until it is shown.
    pub password: Mutex<Option<Password>>,
    task: Mutex<Option<AbortHandle>>,
}

/// What a set-up waits for, or how it has ended.
#[derive(Clone)]
pub enum SetupStep {
    /// Something runs that ends by itself.
    Working,
    /// A person has to sign in at this address.
    SignIn {
        url: Url,
        /// Whether the browser can return by itself.
        is_awaited: bool,
        /// Why the last sign-in did not count.
        complaint: Option<String>,
        /// Why the last address that was pasted did not count.
        wrong_paste: Option<String>,
    },
    /// A person has to enter this code there, on any machine.
    EnterCode {
        code: String,
        url: Url,
        /// The address that already contains the code.
        complete: Option<Url>,
    },
    /// The account is set up; the provider's servers have answered like this.
    Done {
        tests: Arc<Vec<LoginTest>>,
    },
    Failed {
        why: String,
    },
}

impl AccountSetup {
    pub fn step(&self) -> SetupStep {
        self.progress.borrow().clone()
    }

    /// The step, after what runs has ended or a page should be shown anyway. With `is_entered`, a person has entered the
    /// code, which the provider reports only when it is asked the next time.
    pub async fn settled_step(&self, is_entered: bool) -> SetupStep {
        let mut changes = self.progress.subscribe();
        let is_settled = |step: &SetupStep| match step {
            SetupStep::Working => false,
            SetupStep::EnterCode { .. } => !is_entered,
            _ => true,
        };
        let _late = timeout(WAIT, changes.wait_for(is_settled)).await;
        self.step()
    }

    pub fn set(&self, step: SetupStep) {
        self.progress.send_replace(step);
    }

    /// Hands over what a person has pasted, and shows that it is looked at.
    pub fn paste(&self, text: String) {
        // If it is full, the one before is still being looked at.
        if self.pasted.try_send(text).is_ok() {
            self.set(SetupStep::Working);
        }
    }

    /// Makes `task`, which runs this set-up, end together with it.
    pub fn run_by(&self, task: AbortHandle) {
        *lock(&self.task) = Some(task);
    }

    fn abort(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

/// Nobody can see the end of what still runs.
impl Drop for Setups {
    fn drop(&mut self) {
        lock(&self.0).values().for_each(|setup| setup.abort());
    }
}

impl Setups {
    /// Begins to set an account up, for the browser with this form key. Returns it with what will be pasted.
    pub fn begin(
        &self,
        owner: &str,
        address: &str,
        provider: &str,
        remarks: Arc<Mutex<Vec<String>>>,
    ) -> (Arc<AccountSetup>, mpsc::Receiver<String>) {
        let (pasted, arriving) = mpsc::channel(1);
        let setup = Arc::new(AccountSetup {
            id: random::name(),
            address: address.to_owned(),
            provider: provider.to_owned(),
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

    /// The set-up with this name, if this browser has begun it.
    pub fn get(&self, id: &str, owner: &str) -> Option<Arc<AccountSetup>> {
        lock(&self.0).get(id).filter(|setup| setup.owner == owner).cloned()
    }
}
