//! A person with a browser, who knows which buttons to press.

use std::collections::BTreeMap;

use reqwest::header::LOCATION;
use reqwest::{Client, Response, StatusCode};
use url::Url;

/// A person with a browser.
pub struct Person {
    browser: Client,
}

impl Person {
    /// `browser` must not follow redirects itself.
    pub(super) fn new(browser: Client) -> Self {
        Self { browser }
    }

    /// Opens an authorization request and consents. Returns where the browser is sent then.
    pub async fn consent(&self, url: &str, address: &str) -> Url {
        self.decide(url, &[("address", address), ("decision", "allow")]).await
    }

    /// Opens the page that a device has shown, and types its code.
    pub async fn type_in(&self, page: &str, user_code: &str, address: &str, decision: &str) -> StatusCode {
        let here = Url::parse(page).expect("the address of a page");
        let page = self.open(&here).await.text().await.expect("a whole page");
        let form = Form::on(&page, &here).expect("a form for the code");
        let answers = [("user_code", user_code), ("address", address), ("decision", decision)];
        self.submit(&form, &answers).await.status()
    }

    /// Opens an authorization request and refuses. Returns where the browser is sent then.
    pub async fn deny(&self, url: &str) -> Url {
        self.decide(url, &[("decision", "deny")]).await
    }

    /// Consents and goes where the browser is sent. Returns the page there.
    pub async fn consent_and_visit(&self, url: &str, address: &str) -> (StatusCode, String) {
        let target = self.consent(url, address).await;
        let response = self.open(&target).await;
        (response.status(), response.text().await.expect("a whole page"))
    }

    /// Follows redirects and submits forms until the browser is sent away from where it began.
    async fn decide(&self, url: &str, answers: &[(&str, &str)]) -> Url {
        let mut here = Url::parse(url).expect("an authorization URL");
        let mut response = self.open(&here).await;
        // It takes two steps here. Five leave room for a provider with more, and end a loop.
        for _ in 0..5 {
            if let Some(target) = redirection(&here, &response) {
                if target.origin() != here.origin() {
                    return target;
                }
                response = self.open(&target).await;
                here = target;
            } else {
                let page = response.text().await.expect("a whole page");
                let form = Form::on(&page, &here).unwrap_or_else(|| panic!("{here} has no form but this:\n{page}"));
                response = self.submit(&form, answers).await;
                here = form.action;
            }
        }
        panic!("{url} leads nowhere");
    }

    async fn open(&self, url: &Url) -> Response {
        self.browser.get(url.clone()).send().await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    async fn submit(&self, form: &Form, answers: &[(&str, &str)]) -> Response {
        let mut fields = form.fields.clone();
        fields.extend(answers.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let request = self.browser.post(form.action.clone()).form(&fields);
        request.send().await.unwrap_or_else(|error| panic!("{}: {error}", form.action))
    }
}

/// The address to which a response sends the browser, if it does.
fn redirection(here: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection())?;
    here.join(location.to_str().ok()?).ok()
}

/// A form as it came with the page.
struct Form {
    action: Url,
    fields: BTreeMap<String, String>,
}

impl Form {
    /// The first form on a page.
    fn on(page: &str, here: &Url) -> Option<Self> {
        let (_, form) = page.split_once("<form")?;
        let (form, _) = form.split_once("</form>")?;
        let action = here.join(attribute(form, "action")?).ok()?;
        let fields = form.split("<input").skip(1).filter_map(|input| {
            let tag = input.split('>').next()?;
            Some((attribute(tag, "name")?.to_owned(), attribute(tag, "value").unwrap_or("").to_owned()))
        });
        Some(Self { action, fields: fields.collect() })
    }
}

/// The value of an attribute in double quotes.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(rest.split_once('"')?.0)
}
