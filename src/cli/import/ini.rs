//! INI files as Python's `configparser` reads them, with its defaults and without interpolation.

use std::collections::BTreeMap;

/// The section whose options all others inherit.
const DEFAULT: &str = "DEFAULT";

type Options = BTreeMap<String, String>;

/// A file, with its sections in their order.
#[derive(Clone, Default)]
pub struct Ini {
    sections: Vec<(String, Options)>,
}

impl Ini {
    /// # Errors
    ///
    /// The line that cannot be read, from 1, and why not.
    pub fn read(text: &str) -> Result<Self, (usize, String)> {
        let mut reader = Reader::default();
        for (number, line) in (1..).zip(text.replace("\r\n", "\n").split(['\n', '\r'])) {
            reader.line(line).map_err(|why| (number, why))?;
        }
        Ok(reader.ini)
    }

    /// The names of the sections, without the one for defaults.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|(name, _)| name.as_str()).filter(|name| *name != DEFAULT)
    }

    /// The value of an option, or its default.
    pub fn get(&self, section: &str, option: &str) -> Option<&str> {
        let own = self.options(section)?.get(option);
        own.or_else(|| self.options(DEFAULT)?.get(option)).map(|value| value.trim_end())
    }

    /// The names of a section's own options.
    pub fn names(&self, section: &str) -> impl Iterator<Item = &str> {
        self.options(section).into_iter().flat_map(|options| options.keys().map(String::as_str))
    }

    /// Sets an option, in a section that may be new.
    pub fn set(&mut self, section: &str, option: &str, value: &str) {
        if self.options(section).is_none() {
            self.sections.push((section.to_owned(), Options::new()));
        }
        if let Some((_, options)) = self.sections.iter_mut().find(|(name, _)| name == section) {
            options.insert(option.to_owned(), value.to_owned());
        }
    }

    fn options(&self, section: &str) -> Option<&Options> {
        self.sections.iter().find(|(name, _)| name == section).map(|(_, options)| options)
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    ini: Ini,
    /// The option that an indented line continues.
    option: Option<String>,
    /// The indentation of that option.
    indent: usize,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let value = line.trim();
        if value.is_empty() || value.starts_with(['#', ';']) {
            return Ok(());
        }
        let indent = line.chars().take_while(|letter| letter.is_whitespace()).count();
        if let Some(option) = self.option.clone().filter(|_| indent > self.indent) {
            return self.put(option, value, true);
        }
        self.indent = indent;
        if let Some((name, _)) = value.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) {
            return self.section(name);
        }
        let (option, value) = value.split_once(['=', ':']).ok_or("it is neither a section nor an option")?;
        let option = option.trim_end().to_lowercase();
        if option.is_empty() {
            return Err("it has no name before the =".to_owned());
        }
        self.put(option, value.trim_start(), false)
    }

    fn section(&mut self, name: &str) -> Result<(), String> {
        if name.is_empty() || name != DEFAULT && self.ini.options(name).is_some() {
            return Err(format!("the section [{name}] occurs twice, or has no name"));
        }
        self.option = None;
        // The last section is the current one, and the default section may come again.
        let options = match self.ini.sections.iter().position(|(known, _)| known == name) {
            Some(at) => self.ini.sections.remove(at).1,
            None => Options::new(),
        };
        self.ini.sections.push((name.to_owned(), options));
        Ok(())
    }

    fn put(&mut self, option: String, value: &str, continues: bool) -> Result<(), String> {
        let (_, options) = self.ini.sections.last_mut().ok_or("it is not in a section")?;
        match options.get_mut(&option) {
            Some(before) if continues => {
                before.push('\n');
                before.push_str(value);
            }
            Some(_) => return Err(format!("the option {option} occurs twice in its section")),
            None => drop(options.insert(option.clone(), value.to_owned())),
        }
        self.option = Some(option);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_python_does() {
        let text = "# first\n[DEFAULT]\nport = 1\n[One]\nKey: a = b ; c # d\n  second\n; no\n\n  third\nEmpty =\n[a]b]\nx=[y]\n";
        let ini = Ini::read(text).unwrap();
        assert_eq!(ini.sections().collect::<Vec<_>>(), ["One", "a]b"]);
        assert_eq!(ini.get("One", "key"), Some("a = b ; c # d\nsecond\nthird"));
        assert_eq!((ini.get("One", "empty"), ini.get("One", "port")), (Some(""), Some("1")));
        assert_eq!((ini.get("a]b", "x"), ini.get("none", "port")), (Some("[y]"), None));
        assert_eq!(Ini::read("[a]\r\nb = c\r\n").unwrap().get("a", "b"), Some("c"));
    }

    #[test]
    fn what_python_refuses_is_refused_with_its_line() {
        for (text, line) in
            [("a = b\n", 1), ("[a]\nb\n", 2), ("[a]\nb=1\nB=2\n", 3), ("[a]\n[a]\n", 2), ("[a]\n= 1", 2)]
        {
            assert_eq!(Ini::read(text).err().unwrap().0, line, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]a=: #;\n\r\t]{0,60}|.{0,60}") {
            let _either = Ini::read(&text);
        }
    }
}
