//! `postkey password`: the slots of an account.

use super::PasswordCommand;
use super::hand::Hand;
use super::terminal::{Input, say};
use crate::config::{Config, users};
use crate::control::{Carried, Request};
use crate::exit::{Exit, Failed};
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::vault::{Limits, VaultError};

pub async fn run(config: &Config, command: PasswordCommand) -> Result<(), Failed> {
    let hand = Hand::reach(config).await?;
    // A shared mailbox is opened by its delegate's app passwords.
    let owner = |name: String| config.owner_of(&config.address_of(&name)).to_owned();
    match command {
        PasswordCommand::Add { address, name, choose, protocol, uid } => {
            let limits = Limits { protocols: protocol, uids: uid };
            add(&hand, owner(address), name, choose, limits).await
        }
        PasswordCommand::List { address } => list(&hand, &owner(address)).await,
        PasswordCommand::Remove { address, name } => {
            let address = owner(address);
            hand.ask(Request::RemoveSlot { address, name: name.clone() }).await?;
            say(format_args!("The app password {name} does not open anything any more."));
            Ok(())
        }
    }
}

async fn add(hand: &Hand<'_>, address: String, name: String, choose: bool, limits: Limits) -> Result<(), Failed> {
    check_name(&name)?;
    let mut input = Input::new();
    let password = input.password(&format!("An app password that {address} has: ")).await?;
    let new = match choose {
        true => chosen(&input.password("The new app password: ").await?)?,
        false => Password::generate(),
    };
    let (password, carried) = (Carried(password), Carried(Secret::new(new.expose())));
    hand.ask(Request::AddSlot { address, password, name: name.clone(), new: carried, limits }).await?;
    say(format_args!(
        "{name} can log in now.{}",
        if new.is_generated() { " The password is shown only this once:" } else { "" }
    ));
    show(&new);
    Ok(())
}

async fn list(hand: &Hand<'_>, address: &str) -> Result<(), Failed> {
    let status = hand.status().await?;
    let account = status.accounts.iter().find(|account| account.address == address);
    let account = account.ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
    for slot in &account.slots {
        let limits = if slot.limits.is_none() { String::new() } else { format!("  only {}", slot.limits) };
        say(format_args!("{:<20} made {}{limits}", slot.name, slot.created));
    }
    Ok(())
}

/// A user of this machine, by number or name.
pub fn user(text: &str) -> Result<u32, String> {
    text.parse().or_else(|_| users::named(text))
}

/// A password of the user's own choice, if it can be one.
pub fn chosen(typed: &Secret) -> Result<Password, Failed> {
    match typed.expose().contains(&0) {
        true => Err(Failed::new(Exit::Data, "a password cannot hold NUL")),
        false => Ok(Password::chosen(typed.expose())?),
    }
}

/// A slot's name appears in lists and logs.
pub fn check_name(name: &str) -> Result<(), Failed> {
    let fits = (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(Failed::new(Exit::Usage, "a name has 1 to 64 characters, none of them a control character"))
    }
}

/// Shows a generated password, the only time.
pub fn show(password: &Password) {
    if password.is_generated() {
        let text = zeroize::Zeroizing::new(password.expose());
        say(format_args!("  password   {}", String::from_utf8_lossy(&text)));
    }
}
