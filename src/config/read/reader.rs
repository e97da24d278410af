//! A reader of TOML documents that records every mistake and continues.
//!
//! A value that cannot be used is recorded in the [`Report`] and read as `None`, so the callers need no error handling.

use std::cell::RefCell;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use crate::config::mistake::{Mistake, Position};
use crate::config::words;
use crate::guard;

/// The mistakes of one file.
pub struct Report<'a> {
    file: &'a Path,
    text: &'a str,
    disk: Disk,
    mistakes: RefCell<Vec<Mistake>>,
    /// Settings that work, but should be changed.
    warnings: RefCell<Vec<Mistake>>,
    /// The lines with a syntax error. What is read from them is a guess.
    broken: RefCell<Vec<usize>>,
}

/// How the reader checks files.
#[derive(Clone, Copy)]
pub struct Disk {
    /// Fails if this process cannot read the file.
    pub readable: fn(&Path) -> io::Result<()>,
    /// Whether the file is world-readable.
    pub is_public: fn(&Path) -> bool,
}

impl Disk {
    pub const REAL: Self = Self {
        readable: guard::readable,
        is_public: |path| std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0),
    };

    /// Checks nothing.
    pub const NONE: Self = Self { readable: |_| Ok(()), is_public: |_| false };
}

impl<'a> Report<'a> {
    /// An empty report about `text`, the content of `file`.
    pub fn new(file: &'a Path, text: &'a str, disk: Disk) -> Self {
        let (mistakes, warnings, broken) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { file, text, disk, mistakes, warnings, broken }
    }

    pub fn syntax(&self, errors: &[Error]) {
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            // A text without quotes may begin like a number, `true`, `inf` or `nan`, and the error is about that.
            let bare = ["invalid float", "invalid integer", "invalid boolean", "string values must be quoted"];
            let message = match bare.iter().any(|start| error.message().starts_with(start)) {
                true => "is a text without quotes; write it in quotes",
                false => error.message(),
            };
            self.note(at, String::new(), message.to_owned());
            self.broken.borrow_mut().push(Position::of(self.text, at).line);
        }
    }

    /// Records a mistake at the byte `at`, unless it may follow from a syntax error in the same line.
    fn note(&self, at: usize, key: String, message: String) {
        let position = Position::of(self.text, at);
        if !self.broken.borrow().contains(&position.line) {
            let mistake = Mistake { file: self.file.to_owned(), position: Some(position), key, message };
            self.mistakes.borrow_mut().push(mistake);
        }
    }

    /// Whether there is no syntax error. Otherwise a key that seems to be missing may be there.
    fn is_whole(&self) -> bool {
        self.broken.borrow().is_empty()
    }

    /// Returns the warnings, or all mistakes if there are any, in the order of the file.
    pub fn into_result(self) -> Result<Vec<Mistake>, Vec<Mistake>> {
        let [mut mistakes, mut warnings] = [self.mistakes, self.warnings].map(RefCell::into_inner);
        mistakes.sort_by_key(|mistake| mistake.position);
        warnings.sort_by_key(|warning| warning.position);
        if mistakes.is_empty() { Ok(warnings) } else { Err(mistakes) }
    }
}

/// A value and its position.
pub struct Value<'a> {
    report: &'a Report<'a>,
    key: String,
    at: usize,
    value: &'a DeValue<'a>,
    base: Option<Base<'a>>,
}

/// A table in another document, which has the keys that a table does not have.
type Base<'a> = (&'a Report<'a>, &'a DeTable<'a>);

impl<'a> Value<'a> {
    fn new(report: &'a Report<'a>, key: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { report, key, at: value.span().start, value: value.get_ref(), base: None }
    }

    pub fn mistake(&self, message: impl Into<String>) {
        self.report.note(self.at, self.key.clone(), message.into());
    }

    /// Records a mistake that may follow from a syntax error elsewhere, such as an unknown name.
    pub fn absence(&self, message: impl Into<String>) {
        if self.report.is_whole() {
            self.mistake(message);
        }
    }

    /// Records that this works, but should be changed.
    pub fn warn(&self, message: impl Into<String>) {
        let (file, position) = (self.report.file.to_owned(), Some(Position::of(self.report.text, self.at)));
        let warning = Mistake { file, position, key: self.key.clone(), message: message.into() };
        self.report.warnings.borrow_mut().push(warning);
    }

    /// Whether the file that contains it is world-readable.
    pub fn is_public(&self) -> bool {
        (self.report.disk.is_public)(self.report.file)
    }

    /// Records the error of a check of the value or its name.
    pub fn judge<T>(&self, judged: Result<T, String>) -> Option<T> {
        judged.map_err(|message| self.mistake(message)).ok()
    }

    pub fn line(&self) -> usize {
        Position::of(self.report.text, self.at).line
    }

    fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        self.mistake(format!("must be {wanted}, and is of type {}", self.value.type_str()));
        None
    }

    /// A text that is not empty and has no control characters, because many are sent in requests and commands.
    pub fn text(&self) -> Option<&'a str> {
        match self.value.as_str() {
            Some("") => self.mistake("is empty; give it a value, or remove it"),
            Some(text) if text.contains(char::is_control) => {
                self.mistake("has a line break or another control character; remove it")
            }
            Some(text) => return Some(text),
            None => return self.wrong_type("a text in quotes"),
        }
        None
    }

    /// Whether it is this word, in any case of its letters.
    pub fn is_word(&self, word: &str) -> bool {
        self.value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(word))
    }

    /// The one of these words that it probably means, if it is a text.
    pub fn suggest<'n>(&self, words: &[&'n str]) -> Option<&'n str> {
        words::suggest(self.value.as_str()?, words)
    }

    /// A text that `parse` converts.
    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.judge(parse(self.text()?))
    }

    /// One of several words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        self.parse(|text| {
            let chosen = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let refusal = || format!("must be {}, and is \"{text}\"", words::listing(&names, "or"));
            chosen.map(|(_, value)| *value).ok_or_else(refusal)
        })
    }

    pub fn flag(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.wrong_type("true or false"))
    }

    /// The digits, if it is a decimal number.
    pub fn integer(&self) -> Option<&'a str> {
        self.value.as_integer().filter(|integer| integer.radix() == 10).map(|integer| integer.as_str())
    }

    /// A TCP port to connect to.
    pub fn port(&self) -> Option<u16> {
        self.whole("a port from 1 to 65535", 1..=65535).and_then(|port| u16::try_from(port).ok())
    }

    /// A whole number in a range, which `what` describes.
    pub fn whole(&self, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let Some(integer) = self.value.as_integer() else { return self.wrong_type("a number") };
        let number =
            u32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.mistake(format!("must be {what}"));
        }
        number
    }

    /// A path. A relative one begins at the folder of the file.
    pub fn path(&self) -> Option<PathBuf> {
        self.parse(|text| match text.starts_with('~') {
            true => Err("~ is not expanded here; write the whole path".to_owned()),
            false => Ok(self.report.file.parent().unwrap_or(Path::new("")).join(text)),
        })
    }

    /// The path of a file that this process can read.
    pub fn file(&self) -> Option<PathBuf> {
        let path = self.path()?;
        let readable = (self.report.disk.readable)(&path);
        self.judge(readable.map_err(|error| format!("cannot read {}: {error}", path.display())))?;
        Some(path)
    }

    /// The path of a file that this process can read, and not everybody.
    pub fn secret_file(&self) -> Option<PathBuf> {
        let path = self.file()?;
        if (self.report.disk.is_public)(&path) {
            let shown = path.display();
            self.warn(format!("{shown} is world-readable; run `chmod o-r {shown}`"));
        }
        Some(path)
    }

    /// A program by its whole path, and its arguments. No shell runs it.
    pub fn command(&self) -> Option<Vec<String>> {
        let words: Vec<_> = self.list().iter().filter_map(Value::text).map(str::to_owned).collect();
        let first = words.first()?;
        // A single text with spaces is a line for a shell.
        let is_line = matches!(self.value, DeValue::String(_)) && first.contains(' ');
        let named = first.starts_with('/') && !is_line;
        let refusal = "must begin with the whole path of a program, because no shell runs it; write [\"/usr/bin/program\", \"argument\"]";
        self.judge(named.then_some(words).ok_or_else(|| refusal.to_owned()))
    }

    /// The members of a list. A single text is a list of one.
    pub fn list(&self) -> Vec<Value<'a>> {
        match self.value {
            DeValue::Array(members) => self.members(members),
            DeValue::String(_) => vec![Self { key: self.key.clone(), ..*self }],
            _ => self.wrong_type("a text in quotes, or a list of them").unwrap_or_default(),
        }
    }

    fn members(&self, members: &'a [Spanned<DeValue<'a>>]) -> Vec<Value<'a>> {
        if members.is_empty() {
            self.mistake("is empty; name at least one, or remove it");
        }
        members.iter().map(|member| Self::new(self.report, self.key.clone(), member)).collect()
    }

    pub fn is_table(&self) -> bool {
        self.value.as_table().is_some()
    }

    pub fn json(&self) -> Option<serde_json::Value> {
        let json = json(self.value);
        if json.is_none() {
            self.mistake("has a value that JSON does not have: a date, `nan`, or a number that is too large");
        }
        json
    }

    pub fn section(&self) -> Option<Section<'a>> {
        let Some(table) = self.value.as_table() else { return self.wrong_type("a table") };
        let (report, path, at, base) = (self.report, self.key.clone(), self.at, self.base);
        Some(Section { report, path, at, table, base, known: Vec::new() })
    }

    /// Tables that can occur several times.
    pub fn sections(&self) -> Vec<Section<'a>> {
        match self.value {
            DeValue::Array(members) => self.members(members).iter().filter_map(Value::section).collect(),
            _ => {
                self.mistake(format!("can occur several times, so write it in double brackets: [[{}]]", self.key));
                Vec::new()
            }
        }
    }
}

fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(integer) => Value::from(i64::from_str_radix(integer.as_str(), integer.radix()).ok()?),
        DeValue::Float(float) => Value::Number(serde_json::Number::from_f64(float.as_str().parse().ok()?)?),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Array(members) => {
            Value::Array(members.iter().map(|member| json(member.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let members = table.iter().map(|(key, value)| Some((key.get_ref().to_string(), json(value.get_ref())?)));
            Value::Object(members.collect::<Option<_>>()?)
        }
        DeValue::Datetime(_) => return None,
    })
}

/// A table that is being read. In the end, every key that has not been asked for is a mistake.
pub struct Section<'a> {
    report: &'a Report<'a>,
    path: String,
    at: usize,
    table: &'a DeTable<'a>,
    base: Option<Base<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub fn top(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self { report, path: String::new(), at: 0, table, base: None, known: Vec::new() }
    }

    /// The same table, laid over a table of another document, which has the keys that this one does not have.
    pub fn over(self, report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self { base: Some((report, table)), ..self }
    }

    pub fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.value(key)
    }

    fn value(&self, key: &str) -> Option<Value<'a>> {
        let own = self.table.get(key).map(|value| (self.report, value));
        let base = self.base.and_then(|(report, table)| Some((report, table.get(key)?)));
        let (report, value) = own.or(base)?;
        let base = own.and(base).and_then(|(report, value)| Some((report, value.get_ref().as_table()?)));
        Some(Value { base, ..Value::new(report, self.path_of(key), value) })
    }

    /// The keys that have been asked for.
    pub fn known(&self) -> impl Iterator<Item = &'static str> {
        self.known.iter().copied()
    }

    /// The values under names that the user has chosen. Does not include those of a table below.
    pub fn named(&self) -> Vec<(&'a str, Value<'a>)> {
        let names = self.table.keys().map(|name| &**name.get_ref());
        names.filter_map(|name| Some((name, self.value(name)?))).collect()
    }

    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.get(key)?.text().map(str::to_owned)
    }

    pub fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        self.get(key)?.file()
    }

    pub fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.get(key)?.section()
    }

    /// A key's `true` or `false`, by default `false`.
    pub fn flag(&mut self, key: &'static str) -> bool {
        self.get(key).and_then(|value| value.flag()).unwrap_or_default()
    }

    pub fn parse<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.get(key)?.parse(parse)
    }

    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.get(key)?.choice(choices)
    }

    /// The members of a key's list that can be read.
    pub fn list<T>(&mut self, key: &'static str, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        Some(self.get(key)?.list().iter().filter_map(read).collect())
    }

    /// How many of these keys are present. Does not include those of a table below.
    pub fn count(&self, keys: &[&str]) -> usize {
        keys.iter().filter(|key| self.table.contains_key(**key)).count()
    }

    /// Records a mistake for each of these keys that is missing.
    pub fn require(&self, keys: &[&str]) {
        for key in keys.iter().filter(|key| self.value(key).is_none()) {
            self.absence(format!("{key} is missing; add it here"));
        }
    }

    /// Records that the table lacks something, unless a syntax error may have hidden it.
    pub fn absence(&self, message: impl Into<String>) {
        if self.report.is_whole() {
            self.report.note(self.at, self.path.clone(), message.into());
        }
    }

    /// Records a mistake for every key that has not been asked for.
    pub fn finish(self) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let message = format!("unknown key; {}", words::did_you_mean(name, &self.known));
                self.report.note(key.span().start, self.path_of(name), message);
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let key = if bare { key.to_owned() } else { format!("\"{}\"", key.escape_debug()) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}
