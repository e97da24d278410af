//! The fields of a form that a browser has sent.

use std::sync::Arc;

use url::form_urlencoded;

use crate::secret::Secret;

/// The fields of a form that has passed the gate.
#[derive(Clone)]
pub struct SentForm(Arc<Secret>);

impl SentForm {
    /// Takes the body of a request, in the encoding of forms.
    pub fn new(body: Vec<u8>) -> Self {
        Self(Arc::new(Secret::new(body)))
    }

    /// Returns the form without these fields.
    pub fn without(&self, names: &[&str]) -> Self {
        let fields = form_urlencoded::parse(self.0.expose()).filter(|(name, _)| !names.contains(&name.as_ref()));
        Self::new(form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish().into_bytes())
    }

    /// Returns a field without the blanks around it; empty if it is missing.
    pub fn text(&self, name: &str) -> String {
        self.find(name).map(|value| value.trim().to_owned()).unwrap_or_default()
    }

    /// Returns a field as it was typed, if it is not empty.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.find(name).filter(|value| !value.is_empty()).map(|value| Secret::new(value.into_bytes()))
    }

    /// Returns all values of a field that can occur several times.
    pub fn all(&self, name: &str) -> Vec<String> {
        let fields = form_urlencoded::parse(self.0.expose());
        fields.filter(|(key, _)| key == name).map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// Returns a field as it was typed.
    pub fn find(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.0.expose()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}
