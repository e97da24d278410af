//! The device authorization grant (RFC 8628): a person types a code into a page on any other machine.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Url;
use zeroize::Zeroizing;

use super::error_codes::RequestKind;
use super::members::Members;
use super::outcome::{self, RequestError};
use super::{Failure, Granted, Http, Registration, TemporaryCause, request};
use crate::clock::Clock;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The seconds between two polls if the server names none (section 3.2).
const INTERVAL: u64 = 5;

/// `slow_down` adds this to all further pauses (section 3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// Spares a server that names an interval of 0.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after polls without an answer, because a person waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a code is valid in seconds if the server does not say it, as at Microsoft.
const USUAL_LIFE: u64 = 900;

/// Nobody waits for longer than a day.
const LONGEST_LIFE: u64 = 24 * 3600;

/// An authorization that waits for a person.
pub struct DeviceAuthorization {
    device_code: Zeroizing<String>,
    /// The code for the person to type.
    pub user_code: String,
    /// The page on which to type it.
    pub verification_uri: Url,
    /// The page with the code in its address, if the server offers that.
    pub verification_uri_complete: Option<Url>,
    expires_in: Option<u64>,
    interval: Option<u64>,
}

/// The meaning of the answer to a poll.
#[derive(Debug, PartialEq, Eq)]
enum PollStep {
    /// The person has not decided yet.
    Wait,
    /// The same, but the polls come too fast.
    Slower,
    /// The server did not answer, or has a temporary problem.
    Again,
    End(Failure),
}

impl DeviceAuthorization {
    pub async fn begin(
        http: &Http,
        registration: &Registration,
        endpoint: &Url,
        scope: &[String],
        clock: &Clock,
    ) -> Result<Self, Failure> {
        let form = [("scope", &*scope.join(" "))];
        let answer = request::send(http, registration, endpoint, &form, clock).await?;
        let members =
            outcome::members(answer).map_err(|error| error.failure(RequestKind::Device, Some(registration)))?;
        let incomplete = "the authorization server's answer is not an OAuth answer: it lacks device_code, user_code or verification_uri";
        Self::read(&members).ok_or_else(|| Failure::Temporary(TemporaryCause::Lasting(None), incomplete.to_owned()))
    }

    /// Reads the answer (section 3.2). Google has its own names for the addresses.
    fn read(members: &Members) -> Option<Self> {
        Some(Self {
            device_code: members.text("device_code")?.into(),
            user_code: members.text("user_code")?,
            verification_uri: members.url("verification_uri").or_else(|| members.url("verification_url"))?,
            verification_uri_complete: members
                .url("verification_uri_complete")
                .or_else(|| members.url("verification_url_complete")),
            expires_in: members.seconds("expires_in"),
            interval: members.seconds("interval"),
        })
    }

    /// How long the code is valid.
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.expires_in.unwrap_or(USUAL_LIFE).min(LONGEST_LIFE))
    }

    /// Polls until the person has decided, or the code has expired.
    pub async fn tokens(&self, http: &Http, registration: &Registration, clock: &Clock) -> Result<Granted, Failure> {
        let deadline = Instant::now() + self.life();
        let mut rhythm = Rhythm::new(self.interval);
        loop {
            sleep(rhythm.pause).await;
            if Instant::now() >= deadline {
                return Err(expired());
            }
            let form = [("grant_type", GRANT_TYPE), ("device_code", self.device_code.as_str())];
            let granted = request::tokens(http, registration, &form, None, clock).await;
            match granted.map_err(|error| step(error, Some(registration))) {
                Ok(granted) => return Ok(granted),
                Err(PollStep::End(failure)) => return Err(failure),
                Err(step) => rhythm.after(&step),
            }
        }
    }
}

/// When to poll again (section 3.5).
struct Rhythm {
    interval: Duration,
    pause: Duration,
}

impl Rhythm {
    fn new(interval: Option<u64>) -> Self {
        let interval = Duration::from_secs(interval.unwrap_or(INTERVAL)).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        Self { interval, pause: interval }
    }

    fn after(&mut self, step: &PollStep) {
        if *step == PollStep::Slower {
            self.interval += SLOWER;
        }
        self.pause = if *step == PollStep::Again { (self.pause * 2).min(LONGEST_PAUSE) } else { self.interval };
    }
}

/// Section 3.5, and the variants of some servers.
fn step(error: RequestError, registration: Option<&Registration>) -> PollStep {
    let error = match error {
        RequestError::Refused(error) => error,
        RequestError::Failed(Failure::Temporary(..)) => return PollStep::Again,
        RequestError::Failed(failure) => return PollStep::End(failure),
    };
    match error.code.as_str() {
        "authorization_pending" => PollStep::Wait,
        "slow_down" => PollStep::Slower,
        "access_denied" | "authorization_declined" => {
            PollStep::End(Failure::Ended("the person has declined".to_owned()))
        }
        "expired_token" | "bad_verification_code" => PollStep::End(expired()),
        _ => match error.failure(RequestKind::Device, registration) {
            Failure::Temporary(..) => PollStep::Again,
            failure => PollStep::End(failure),
        },
    }
}

fn expired() -> Failure {
    Failure::Ended("the code has expired; run the command again for a new one".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::errors::ErrorResponse;

    fn step(error: RequestError) -> PollStep {
        super::step(error, None)
    }

    fn said(error: &str) -> PollStep {
        step(RequestError::Refused(Box::new(ErrorResponse::redirected(error.to_owned(), "x".to_owned()))))
    }

    #[test]
    fn every_variant_of_a_poll_answer_is_understood() {
        assert_eq!(said("authorization_pending"), PollStep::Wait);
        assert_eq!(said("slow_down"), PollStep::Slower);
        assert_eq!(said("temporarily_unavailable"), PollStep::Again);
        let failed = |failure| step(RequestError::Failed(failure));
        assert_eq!(failed(Failure::Temporary(TemporaryCause::Unreachable, "no route".into())), PollStep::Again);
        assert!(matches!(failed(Failure::Misconfigured("no key".into())), PollStep::End(_)));
        for no in ["access_denied", "authorization_declined"] {
            assert_eq!(said(no), PollStep::End(Failure::Ended("the person has declined".into())));
        }
        for late in ["expired_token", "bad_verification_code"] {
            assert_eq!(said(late), PollStep::End(expired()));
        }
        assert!(matches!(said("invalid_client"), PollStep::End(Failure::Misconfigured(_))));
        assert!(matches!(said("invalid_grant"), PollStep::End(Failure::Ended(_))));
    }

    #[test]
    fn the_polls_follow_the_interval_of_the_server() {
        let mut rhythm = Rhythm::new(None);
        let mut pauses = vec![rhythm.pause.as_secs()];
        for step in [
            PollStep::Wait,
            PollStep::Slower,
            PollStep::Wait,
            PollStep::Again,
            PollStep::Again,
            PollStep::Wait,
            PollStep::Slower,
        ] {
            rhythm.after(&step);
            pauses.push(rhythm.pause.as_secs());
        }
        assert_eq!(pauses, [5, 5, 10, 10, 20, 40, 10, 15]);
        assert_eq!(Rhythm::new(Some(0)).pause, SHORTEST_PAUSE);
        assert_eq!(Rhythm::new(Some(u64::MAX)).pause, LONGEST_PAUSE);
    }

    #[test]
    fn every_variant_of_the_first_answer_is_understood() {
        let read = |text: &str| DeviceAuthorization::read(&Members::read(text.as_bytes()).unwrap()).unwrap();
        let rfc = read(
            r#"{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://a.test/device",
                "verification_uri_complete":"https://a.test/device?user_code=WDJB-MJHT","expires_in":1800,"interval":7}"#,
        );
        assert_eq!((rfc.life().as_secs(), rfc.interval), (1800, Some(7)));
        assert_eq!(rfc.verification_uri_complete.unwrap().query(), Some("user_code=WDJB-MJHT"));
        let google =
            read(r#"{"device_code":"d","user_code":"A","verification_url":"https://a.test/","expires_in":"60"}"#);
        assert_eq!((google.life().as_secs(), google.interval), (60, None));
        let bare =
            read(r#"{"device_code":"d","user_code":"A","verification_uri":"https://a.test/","message":"To sign in"}"#);
        assert_eq!(bare.life().as_secs(), USUAL_LIFE);
        let odd = read(
            r#"{"device_code":"d","user_code":123456,"verification_uri":"https://a.test/",
                "verification_uri_complete":"","expires_in":"soon","interval":null}"#,
        );
        assert_eq!((odd.user_code.as_str(), odd.life().as_secs(), odd.interval), ("123456", USUAL_LIFE, None));
        assert!(odd.verification_uri_complete.is_none());
    }
}
