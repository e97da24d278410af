//! What people have consented to, and the tokens that they led to (RFC 6749, RFC 7636, RFC 9700).

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::random;
use super::settings::Settings;

/// A valid authorization request.
#[derive(Clone)]
pub struct Request {
    pub redirect_uri: String,
    pub scope: String,
    pub state: String,
    pub code_challenge: String,
    /// The nonce, which the id_token repeats; empty if there is none.
    pub nonce: String,
    /// The client that asks.
    pub client_id: String,
}

/// What the token endpoint issues.
pub struct Tokens {
    pub access_token: String,
    /// None if the old one stays valid.
    pub refresh_token: Option<String>,
    pub address: String,
    pub scope: String,
    /// From the authorization request, if these are the first tokens.
    pub nonce: String,
}

/// An authorization code, and the grant that it was exchanged for.
#[derive(Clone)]
struct Code {
    request: Request,
    address: String,
    grant: Option<usize>,
}

/// One consent of one person.
#[derive(Clone)]
struct Grant {
    address: String,
    scope: String,
    alive: bool,
    refresh_token: String,
    spent: HashSet<String>,
}

/// A device that waits for its person.
#[derive(Clone)]
struct Device {
    user_code: String,
    scope: String,
    /// Who has consented; an inner None if the person refused.
    decision: Option<Option<String>>,
}

#[derive(Clone)]
struct Access {
    grant: usize,
    expires: Instant,
}

/// The memory of the authorization server. Grants are identified by their index and never removed.
#[derive(Clone, Default)]
pub struct Grants {
    waiting: HashMap<String, Request>,
    codes: HashMap<String, Code>,
    devices: HashMap<String, Device>,
    grants: Vec<Grant>,
    access: HashMap<String, Access>,
    /// Everything that only the client may see: codes, verifiers, tokens, valid or not.
    pub secrets: Vec<String>,
}

impl Grants {
    /// Stores a request until its person has decided. Returns its number on the consent page.
    pub fn ask(&mut self, request: Request) -> String {
        let number = random(16);
        self.waiting.insert(number.clone(), request);
        number
    }

    /// The person has decided, so the request no longer waits. None if it never did.
    pub fn decided(&mut self, number: &str) -> Option<Request> {
        self.waiting.remove(number)
    }

    /// A code for a request that this person has consented to.
    pub fn issue_code(&mut self, request: Request, address: &str) -> String {
        let code = self.secret(32);
        self.codes.insert(code.clone(), Code { request, address: address.to_owned(), grant: None });
        code
    }

    /// Exchanges a code for tokens, once. A second time ends what the first one has brought (RFC 6749 section 4.1.2).
    pub fn redeem(
        &mut self,
        code: &str,
        uri: &str,
        verifier: &str,
        settings: &Settings,
    ) -> Result<Tokens, &'static str> {
        self.secrets.push(verifier.to_owned());
        let known = self.codes.get(code).ok_or("unknown code")?;
        if let Some(grant) = known.grant {
            self.kill(grant);
            return Err("the code was used before");
        }
        if settings.checks_codes && known.request.redirect_uri != uri {
            return Err("redirect_uri is not that of the authorization request");
        }
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        if settings.checks_codes && challenge != known.request.code_challenge {
            return Err("code_verifier does not fit");
        }
        let (address, scope) = (known.address.clone(), known.request.scope.clone());
        let nonce = known.request.nonce.clone();
        let tokens = Tokens { nonce, ..self.grant(&address, &scope, settings) };
        if let Some(known) = self.codes.get_mut(code) {
            known.grant = Some(self.grants.len() - 1);
        }
        Ok(tokens)
    }

    /// A new grant with its first tokens.
    pub fn grant(&mut self, address: &str, scope: &str, settings: &Settings) -> Tokens {
        let (address, scope, refresh_token) =
            (address.to_owned(), scope.to_owned(), self.secret(settings.refresh_bytes));
        let spent = HashSet::new();
        self.grants.push(Grant { address, scope, alive: true, refresh_token: refresh_token.clone(), spent });
        Tokens { refresh_token: Some(refresh_token), ..self.issue(self.grants.len() - 1, settings) }
    }

    /// A grant from long ago, of which only the refresh token is left.
    pub fn adopt(&mut self, address: &str, scope: &str, refresh_token: &str) {
        self.secrets.push(refresh_token.to_owned());
        let (address, scope, refresh_token) = (address.to_owned(), scope.to_owned(), refresh_token.to_owned());
        self.grants.push(Grant { address, scope, alive: true, refresh_token, spent: HashSet::new() });
    }

    /// A device's code, and the one that its person types.
    pub fn ask_device(&mut self, scope: &str) -> (String, String) {
        let (device_code, user_code) = (self.secret(32), random(6));
        let device = Device { user_code: user_code.clone(), scope: scope.to_owned(), decision: None };
        self.devices.insert(device_code.clone(), device);
        (device_code, user_code)
    }

    /// A person has typed a code, and consented or refused. False if there is no such code.
    pub fn decide_device(&mut self, user_code: &str, decision: Option<String>) -> bool {
        let device = self.devices.values_mut().find(|device| device.user_code == user_code);
        device.map(|device| device.decision = Some(decision)).is_some()
    }

    /// Exchanges a device's code for tokens, once; or the error code of RFC 8628 section 3.5.
    pub fn redeem_device(&mut self, device_code: &str, settings: &Settings) -> Result<Tokens, &'static str> {
        let device = self.devices.get(device_code).ok_or("expired_token")?;
        let Some(decision) = device.decision.clone() else { return Err("authorization_pending") };
        let scope = device.scope.clone();
        self.devices.remove(device_code);
        decision.map(|address| self.grant(&address, &scope, settings)).ok_or("access_denied")
    }

    /// Tokens that cannot be refreshed.
    pub fn grant_once(&mut self, address: &str, scope: &str, settings: &Settings) -> Tokens {
        Tokens { refresh_token: None, ..self.grant(address, scope, settings) }
    }

    /// Exchanges a refresh token for new tokens. A spent one counts as stolen, and its grant ends.
    pub fn refresh(&mut self, token: &str, settings: &Settings) -> Result<Tokens, &'static str> {
        let holds = |grant: &Grant| grant.refresh_token == token || grant.spent.contains(token);
        let place = self.grants.iter().position(holds).ok_or("unknown refresh token")?;
        let renewed = settings.rotate.then(|| self.secret(settings.refresh_bytes));
        let grant = &mut self.grants[place];
        if !grant.alive {
            return Err("the grant has ended");
        }
        if grant.spent.contains(token) {
            self.kill(place);
            return Err("the refresh token was used before");
        }
        if let Some(renewed) = &renewed {
            grant.spent.insert(std::mem::replace(&mut grant.refresh_token, renewed.clone()));
        }
        Ok(Tokens { refresh_token: renewed, ..self.issue(place, settings) })
    }

    /// The owner of this access token; None if it is unknown, expired, revoked, or not for mail.
    pub fn holder(&self, access_token: &str) -> Option<&str> {
        let access = self.access.get(access_token).filter(|access| Instant::now() < access.expires)?;
        let grant = self.grants.get(access.grant)?;
        grant.scope.split(' ').any(|scope| scope == "mail").then_some(&grant.address)
    }

    /// Ends all access tokens. Refresh tokens stay valid.
    pub fn revoke_access_tokens(&mut self) {
        self.access.clear();
    }

    /// Ends the grant of this refresh token, or the access token. An unknown token has already ended.
    pub fn revoke(&mut self, token: &str) {
        match self.grants.iter().position(|grant| grant.refresh_token == token) {
            Some(place) => self.kill(place),
            None => drop(self.access.remove(token)),
        }
    }

    /// Ends all grants of a person.
    pub fn end(&mut self, address: &str) {
        for place in 0..self.grants.len() {
            if self.grants[place].address == address {
                self.kill(place);
            }
        }
    }

    /// The number of refresh tokens that this person's consents have used up.
    pub fn spent(&self, address: &str) -> usize {
        self.grants.iter().filter(|grant| grant.address == address).map(|grant| grant.spent.len()).sum()
    }

    /// The valid refresh token of this person's latest consent.
    pub fn refresh_token(&self, address: &str) -> Option<String> {
        let grant = self.grants.iter().rfind(|grant| grant.address == address && grant.alive);
        grant.map(|grant| grant.refresh_token.clone())
    }

    /// Whether a consent of this person has been ended, for example by a spent refresh token.
    pub fn has_ended(&self, address: &str) -> bool {
        self.grants.iter().any(|grant| grant.address == address && !grant.alive)
    }

    /// A new access token, and no refresh token.
    fn issue(&mut self, place: usize, settings: &Settings) -> Tokens {
        let mut access_token = self.secret(settings.token_length / 4 * 3);
        if let Some(claims) = &settings.access_claims {
            let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            access_token = format!("{}.{}.{access_token}", encode(r#"{"typ":"JWT"}"#), encode(&claims.to_string()));
            self.secrets.push(access_token.clone());
        }
        let access = Access { grant: place, expires: Instant::now() + settings.token_life + settings.grace };
        self.access.insert(access_token.clone(), access);
        let Grant { address, scope, .. } = &self.grants[place];
        Tokens {
            access_token,
            refresh_token: None,
            address: address.clone(),
            scope: settings.granted_scope.clone().unwrap_or_else(|| scope.clone()),
            nonce: String::new(),
        }
    }

    /// `bytes` of randomness, base64url. It is remembered as a secret.
    fn secret(&mut self, bytes: usize) -> String {
        let secret = random(bytes);
        self.secrets.push(secret.clone());
        secret
    }

    fn kill(&mut self, place: usize) {
        self.grants[place].alive = false;
        self.access.retain(|_, access| access.grant != place);
    }
}
