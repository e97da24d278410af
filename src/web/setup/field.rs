//! The fields of forms, with what was typed and what is wrong with it.

use askama::Template;

/// A field with its label. An error is linked to it, and what was typed stays.
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

    pub fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub fn value(self, value: impl Into<String>) -> Self {
        Self { value: value.into(), ..self }
    }

    /// Says what is wrong, if anything is.
    pub fn error(self, error: Option<&str>) -> Self {
        Self { error: error.map(super::view::sentence).unwrap_or_default(), ..self }
    }

    pub fn is_wrong(&self) -> bool {
        !self.error.is_empty()
    }

    /// The ids of what describes the field.
    fn described_by(&self) -> String {
        let hint = (!self.hint.is_empty()).then(|| format!("{}-hint", self.id));
        let error = (!self.error.is_empty()).then(|| format!("{}-error", self.id));
        hint.into_iter().chain(error).collect::<Vec<_>>().join(" ")
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
