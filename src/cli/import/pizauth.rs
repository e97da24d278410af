//! pizauth: its configuration, and what `pizauth dump` writes.

use std::collections::BTreeMap;

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use url::Url;
use zeroize::Zeroizing;

use super::account::{ImportedAccount, ImportedFiles, ImportedTokens};
use crate::config::provider::Endpoints;
use crate::name::Name;
use crate::secret::{Secret, Token};

/// Every dump is encrypted with this key, which is public: it only hides tokens from searches in files.
const DUMP_KEY: [u8; 32] = [
    0x66, 0xa2, 0x47, 0xa8, 0x5e, 0x48, 0xcf, 0xec, 0xaa, 0xed, 0x9b, 0x36, 0xeb, 0xa9, 0x7d, 0x53, 0x50, 0xd4, 0x28,
    0x63, 0x75, 0x09, 0x7a, 0x44, 0xee, 0xff, 0xb9, 0xc4, 0x54, 0x6b, 0x65, 0xa3,
];

/// The version of dumps of pizauth 1.
const DUMP_VERSION: u64 = 1;

/// The account of a configuration or a dump.
#[derive(Default)]
struct PizauthAccount {
    fields: BTreeMap<String, String>,
    scope: Vec<String>,
    /// Further fields of the authorization request.
    more: Vec<(String, String)>,
    refresh: Option<String>,
}

/// Whether this is the configuration: it has an account with the token endpoint that each must have.
pub fn is_configuration(text: &str) -> bool {
    Tokenizer(text).any(|token| token == "account") && Tokenizer(text).any(|token| token == "token_uri")
}

/// Reads the configuration, which has no tokens.
pub fn configuration(text: &str) -> ImportedFiles {
    let mut tokens = Tokenizer(text);
    let mut accounts = Vec::new();
    while let Some(token) = tokens.next() {
        if token == "account" {
            let name = tokens.next().as_deref().map(unquoted).unwrap_or_default();
            accounts.push(entry(&mut tokens).into_account(&name));
        }
    }
    found(accounts)
}

/// Reads what follows the name of an account, up to its closing brace.
fn entry(tokens: &mut Tokenizer<'_>) -> PizauthAccount {
    let mut entry = PizauthAccount::default();
    let (mut key, mut values, mut depth) = (None, Vec::new(), 0);
    for token in tokens {
        match token.as_str() {
            "{" | "[" => depth += 1,
            "}" | "]" if depth <= 1 && token == "}" => break,
            "}" | "]" => depth -= 1,
            ";" => {
                entry.set(key.take().unwrap_or_default(), std::mem::take(&mut values));
            }
            "=" | "," | ":" => {}
            _ if key.is_none() => key = Some(token),
            _ => values.push(unquoted(&token)),
        }
    }
    entry
}

impl PizauthAccount {
    fn set(&mut self, key: String, values: Vec<String>) {
        match key.as_str() {
            "scopes" => self.scope = values,
            "auth_uri_fields" => {
                let mut values = values.into_iter();
                while let (Some(name), Some(value)) = (values.next(), values.next()) {
                    self.more.push((name, value));
                }
            }
            _ => drop(self.fields.insert(key, values.into_iter().next().unwrap_or_default())),
        }
    }

    /// The address is the login hint, or the name that the user has given the account.
    fn into_account(self, name: &str) -> ImportedAccount {
        let hint = self.more.iter().find(|(name, _)| name == "login_hint").map(|(_, value)| value);
        let hint = hint.or_else(|| self.fields.get("login_hint"));
        let addresses = hint.map(String::as_str).into_iter().chain([name]);
        let address = addresses.filter_map(|text| Name::address(text).ok()).next();
        let url = |key: &str| self.fields.get(key).and_then(|text| Url::parse(text).ok());
        ImportedAccount {
            address: address.map(String::from).unwrap_or_default(),
            endpoints: Endpoints { authorization: url("auth_uri"), token: url("token_uri"), ..Endpoints::default() },
            client_id: self.fields.get("client_id").cloned(),
            client_secret: self.fields.get("client_secret").map(|secret| Secret::new(secret.clone().into_bytes())),
            redirect_uri: url("redirect_uri"),
            scope: self.scope,
            tokens: self
                .refresh
                .as_deref()
                .and_then(Token::parse)
                .map_or(ImportedTokens::Missing, ImportedTokens::Open),
            ..ImportedAccount::default()
        }
    }
}

fn found(accounts: Vec<ImportedAccount>) -> ImportedFiles {
    let mut found = ImportedFiles { program: "pizauth", accounts, ..ImportedFiles::default() };
    if found.accounts.iter().any(|account| matches!(account.tokens, ImportedTokens::Missing)) {
        found.warnings.push(
            "tokens of pizauth are only in its memory; have it write them with `pizauth dump > FILE` and import that file".to_owned(),
        );
    }
    found
}

/// Opens a dump. None if it is not one.
///
/// # Errors
///
/// It is a dump that cannot be read.
pub fn dump(bytes: &[u8]) -> Option<Result<ImportedFiles, String>> {
    let (nonce, sealed) = bytes.split_first_chunk::<12>()?;
    let cipher = ChaCha20Poly1305::new(&DUMP_KEY.into());
    let plain = Zeroizing::new(cipher.decrypt(&Nonce::from(*nonce), sealed).ok()?);
    let mut fields = Fields(&plain);
    let accounts = fields.dump();
    Some(
        accounts.map(found).ok_or_else(|| "it is a dump of a version of pizauth that postkey does not know".to_owned()),
    )
}

/// The rest of a dump: numbers are little-endian, texts and lists begin with their length in 8 bytes, an option with a byte.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn dump(&mut self) -> Option<Vec<ImportedAccount>> {
        let version = self.number()?;
        let count = self.number().filter(|_| version == DUMP_VERSION)?;
        let accounts: Option<Vec<_>> = (0..count.min(10_000)).map(|_| self.account()).collect();
        accounts.filter(|_| self.0.is_empty())
    }

    fn account(&mut self) -> Option<ImportedAccount> {
        let name = self.text()?;
        let mut entry = PizauthAccount::default();
        entry.set("auth_uri".to_owned(), vec![self.text()?]);
        for _ in 0..self.number()? {
            entry.more.push((self.text()?, self.text()?));
        }
        entry.set("client_id".to_owned(), vec![self.text()?]);
        if let Some(secret) = self.option()? {
            entry.set("client_secret".to_owned(), vec![secret]);
        }
        entry.set("redirect_uri".to_owned(), vec![self.text()?]);
        for _ in 0..self.number()? {
            entry.scope.push(self.text()?);
        }
        entry.set("token_uri".to_owned(), vec![self.text()?]);
        entry.refresh = self.tokens()?;
        Some(entry.into_account(&name))
    }

    /// The refresh token of a state: 0 is an empty one; 1 has an access token, two times, and perhaps a refresh token.
    fn tokens(&mut self) -> Option<Option<String>> {
        match u32::from_le_bytes(self.bytes()?) {
            0 => Some(None),
            1 => {
                self.text()?;
                // Seconds and nanoseconds.
                self.bytes::<12>()?;
                self.bytes::<12>()?;
                self.option()
            }
            _ => None,
        }
    }

    fn option(&mut self) -> Option<Option<String>> {
        match self.bytes()? {
            [0] => Some(None),
            [1] => self.text().map(Some),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }
}

/// The words, texts in quotes and signs of a configuration, without comments.
struct Tokenizer<'a>(&'a str);

impl Iterator for Tokenizer<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            self.0 = self.0.trim_start();
            match self.0.strip_prefix("//") {
                Some(comment) => self.0 = comment.split_once('\n').map_or("", |(_, rest)| rest),
                None => break,
            }
        }
        let mut is_escaped = false;
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let end = match self.0.chars().next()? {
            '"' => self.0.char_indices().skip(1).find(|(_, letter)| {
                let ends = *letter == '"' && !is_escaped;
                is_escaped = *letter == '\\' && !is_escaped;
                ends
            }),
            first if is_word(first) => {
                self.0.char_indices().find(|(_, letter)| !is_word(*letter)).map(|(at, _)| (at, '\0'))
            }
            first => Some((0, first)),
        };
        let end = end.map_or(self.0.len(), |(at, letter)| if letter == '\0' { at } else { at + letter.len_utf8() });
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(token.to_owned())
    }
}

/// A text without its quotes. A backslash escapes a quote, and itself.
fn unquoted(token: &str) -> String {
    let inside = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(token);
    let mut letters = inside.chars();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        // account "no" { token_uri = "x"; }
        auth_notify_cmd = "notify \"$PIZAUTH_URL\" // }";
        refresh_retry = 40s;
        account "work" {
            auth_uri = "https://login.microsoftonline.com/common/oauth2/v2.0/authorize";
            token_uri = "https://login.microsoftonline.com/common/oauth2/v2.0/token";
            client_id = "id"; // mine
            client_secret = "a\"b\\c";
            scopes = [ "https://outlook.office365.com/IMAP.AccessAsUser.All", "offline_access" ];
            auth_uri_fields = { "prompt": "consent", "login_hint": "Ann@example.com" };
        }
        account "ben@gmail.com" { auth_uri = "https://a.test/"; token_uri = "https://a.test/t"; client_id = "2"; scopes = []; }
        account "third" { auth_uri = "https://a.test/"; token_uri = "https://a.test/t"; client_id = "3"; login_hint = "cy@a.test"; }
    "#;

    #[test]
    fn a_configuration_has_accounts_without_tokens() {
        assert!(is_configuration(TEXT));
        let found = configuration(TEXT);
        let addresses: Vec<_> = found.accounts.iter().map(|account| account.address.as_str()).collect();
        assert_eq!(addresses, ["ann@example.com", "ben@gmail.com", "cy@a.test"]);
        let first = &found.accounts[0];
        assert_eq!((first.client_id.as_deref(), first.scope.len()), (Some("id"), 2));
        assert_eq!(first.client_secret.as_ref().unwrap().expose(), br#"a"b\c"#);
        assert!(found.warnings[0].contains("pizauth dump"));
    }

    /// Serialized by wincode, the library that pizauth 1.1.0 uses for its dump, and encrypted as there.
    const DUMP: &str = include_str!("pizauth.dump.base64");

    #[test]
    fn a_dump_has_the_refresh_tokens() {
        use base64::Engine as _;
        let bytes = base64::prelude::BASE64_STANDARD.decode(DUMP.trim()).unwrap();
        let found = dump(&bytes).unwrap().ok().unwrap();
        assert_eq!(found.accounts.len(), 2);
        let (other, account) = (&found.accounts[0], &found.accounts[1]);
        assert_eq!((other.address.as_str(), account.address.as_str()), ("ben@example.test", "ann@example.test"));
        assert!(matches!(other.tokens, ImportedTokens::Missing) && other.client_secret.is_none());
        assert_eq!((account.client_id.as_deref(), account.scope.len()), (Some("one"), 2));
        assert_eq!(account.client_secret.as_ref().unwrap().expose(), b"hush");
        assert!(matches!(&account.tokens, ImportedTokens::Open(token) if token.expose() == "refresh-token-of-ann"));
        assert!(dump(&bytes[..bytes.len() - 1]).is_none() && dump(b"").is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_and_any_dump_is_read_or_refused(text in r#"[a"\\{}\[\]=;:/ \n]{0,60}"#, bytes in proptest::collection::vec(0..4_u8, 0..200)) {
            let _found = configuration(&text);
            let _accounts = Fields(&bytes).dump();
        }
    }
}
