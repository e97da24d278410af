//! Fills a vault with accounts, as if each of them had been authorized and had logged in once by each protocol.

use std::fs;
use std::io;
use std::path::Path;

use postkey::clock::Clock;
use postkey::config::flow::Flow;
use postkey::protocol::Protocol;
use postkey::secret::Token;
use postkey::token::{Life, TokenSet};
use postkey::vault::password::Password;
use postkey::vault::{Authorization, Secrets, Vault};

use crate::upstream::TOKEN;

/// What a large provider's servers offer before the login.
const OFFERS: [(Protocol, &str); 3] = [
    (
        Protocol::Imap,
        "IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 AUTH=XOAUTH2 AUTH=OAUTHBEARER",
    ),
    (Protocol::Pop3, "USER|RESP-CODES|EXPIRE 0|LOGIN-DELAY 300|TOP|UIDL|SASL XOAUTH2 OAUTHBEARER"),
    (
        Protocol::Smtp,
        "SIZE 35882577|8BITMIME|AUTH XOAUTH2 OAUTHBEARER|ENHANCEDSTATUSCODES|PIPELINING|CHUNKING|SMTPUTF8",
    ),
];

/// Creates a vault with so many accounts. It is built in memory, where a sync takes no time, and then moved to its place.
pub fn fill(state: &Path, count: usize) -> io::Result<()> {
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let built = memory.path().join("state");
    let vault = Vault::open(&built).map_err(io::Error::other)?;
    let password = Password::generate();
    for number in 0..count {
        settle(&vault, &format!("crowd-{number:05}@example.test"), &password)?;
    }
    drop(vault);
    copy(&built, state)
}

fn settle(vault: &Vault, address: &str, password: &Password) -> io::Result<()> {
    let now = Clock::System.now();
    let token = |text: &str| Token::parse(text).ok_or(io::ErrorKind::InvalidData);
    let tokens = TokenSet {
        access: token(TOKEN)?,
        refresh: Some(token(TOKEN.get(..103).unwrap_or(TOKEN))?),
        life: Life { issued: now, expires: now.after(86_400) },
        scope: "mail".to_owned(),
    };
    let authorization = Authorization {
        address: address.to_owned(),
        provider: "bench".to_owned(),
        flow: Flow::AuthorizationCode,
        client_id: None,
        secrets: Secrets::default(),
        discovered: None,
        tokens,
    };
    vault.authorize(&authorization, Some(("main", password)), now).map_err(io::Error::other)?;
    for (protocol, offer) in OFFERS {
        let separator = if protocol == Protocol::Imap { ' ' } else { '|' };
        let list = offer.split(separator).map(str::to_owned).collect();
        vault.learn(address, protocol, list).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Copies a folder with everything in it. Only its owner can open the copy.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    Vault::make_folder(to).map_err(io::Error::other)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
