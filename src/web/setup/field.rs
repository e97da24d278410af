//! The fields of forms, with their values and errors.

use askama::Template;

/// A field with its label, its value, and an error that refers to it (`aria-describedby`).
#[derive(Template)]
#[template(path = "field.html")]
pub struct Field {
    id: String,
    name: &'static str,
    label: String,
    hint: String,
    value: String,
    kind: &'static str,
    autocomplete: &'static str,
    error: String,
    required: bool,
}

impl Field {
    /// A required field for a line of text. `form` distinguishes fields of the same name on a page.
    pub fn new(form: &str, name: &'static str, label: impl Into<String>) -> Self {
        Self {
            id: format!("{form}-{name}"),
            name,
            label: label.into(),
            hint: String::new(),
            value: String::new(),
            kind: "text",
            autocomplete: "off",
            error: String::new(),
            required: true,
        }
    }

    pub fn email(self) -> Self {
        Self { kind: "email", autocomplete: "email", ..self }
    }

    /// A field for a secret, which is not shown again.
    pub fn secret(self) -> Self {
        Self { kind: "password", ..self }
    }

    /// A field for the text of a file, which is a secret. A script can read the file into it.
    pub fn file(self) -> Self {
        Self { kind: "file", ..self }
    }

    pub fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub fn value(self, value: impl Into<String>) -> Self {
        Self { value: value.into(), ..self }
    }

    /// Marks the field as wrong, if there is an error.
    pub fn error(self, error: Option<&str>) -> Self {
        Self { error: error.map(super::view::sentence).unwrap_or_default(), ..self }
    }

    pub fn is_wrong(&self) -> bool {
        !self.error.is_empty()
    }

    /// The attributes that say whether it is wrong, and which texts describe it.
    fn state(&self) -> String {
        let hint = (!self.hint.is_empty()).then(|| format!("{}-hint", self.id));
        let error = self.is_wrong().then(|| format!("{}-error", self.id));
        let ids = hint.into_iter().chain(error).collect::<Vec<_>>().join(" ");
        let described = if ids.is_empty() { ids } else { format!(" aria-describedby=\"{ids}\"") };
        format!("{}{described}", if self.is_wrong() { " aria-invalid=\"true\"" } else { "" })
    }
}

/// An option of a list to choose from.
pub struct Choice {
    pub value: String,
    pub label: String,
    pub chosen: bool,
}

impl Choice {
    pub fn new(value: impl Into<String>, label: impl Into<String>, chosen: &str) -> Self {
        let value = value.into();
        Self { chosen: value == chosen, value, label: label.into() }
    }
}
