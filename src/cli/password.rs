//! `postkey password`: adds, lists and removes the app passwords of an account.

use super::accounts;
use super::admin::AdminClient;
use super::arguments::PasswordCommand;
use super::terminal::{Input, say};
use crate::config::Config;
use crate::control::ControlRequest;
use crate::exit::{Exit, Failed};
use crate::secret::Secret;
use crate::vault::password::Password;
use crate::vault::{Limits, VaultError, check_slot_name};

pub async fn run(config: &Config, command: PasswordCommand) -> Result<(), Failed> {
    let admin = AdminClient::connect(config).await?;
    // The delegate's app passwords open a shared mailbox.
    let owner = |name: String| config.owner_of(&config.address_of(&name)).to_owned();
    match command {
        PasswordCommand::Add { address, name, choose, protocol, uid } => {
            check_slot_name(&name)?;
            let address = owner(address);
            accounts::find(config, &admin, &address).await?;
            let limits = Limits { protocols: protocol, uids: uid };
            add(&admin, address, name, choose, limits).await
        }
        PasswordCommand::List { address } => list(&admin, &owner(address)).await,
        PasswordCommand::Remove { address, name } => {
            let address = owner(address);
            admin.ask::<()>(ControlRequest::RemoveSlot { address: address.clone(), name: name.clone() }).await?;
            say(format_args!("The app password {name} has been removed."));
            say(format_args!(
                "If it has leaked together with a backup or another copy of the vault, run \
                 `postkey forget --revoke {address}` and `postkey authorize {address}`."
            ));
            Ok(())
        }
    }
}

async fn add(
    admin: &AdminClient<'_>,
    address: String,
    name: String,
    choose: bool,
    limits: Limits,
) -> Result<(), Failed> {
    let mut input = Input::new();
    let password = input.password(&format!("An existing app password of {address}: ")).await?;
    let new = match choose {
        true => chosen(&input.password("The new app password: ").await?)?,
        false => Password::generate(),
    };
    let request = ControlRequest::AddSlot { address, password, name: name.clone(), new: new.clone(), limits };
    admin.ask::<()>(request).await?;
    let hint = if new.is_generated() { " The password is not shown again:" } else { "" };
    say(format_args!("{name} can log in now.{hint}"));
    show(&new);
    Ok(())
}

async fn list(admin: &AdminClient<'_>, address: &str) -> Result<(), Failed> {
    let status = accounts::select(admin, address).await?;
    let account = status.account(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
    for slot in &account.slots {
        let limits = if slot.limits.is_none() { String::new() } else { format!("  only {}", slot.limits) };
        say(format_args!("{:<20} created {}{limits}", slot.name, slot.created));
    }
    Ok(())
}

/// Checks a password that the user chose.
pub fn chosen(typed: &Secret) -> Result<Password, Failed> {
    match typed.expose().contains(&0) {
        true => Err(Failed::new(Exit::Data, "a password cannot contain a NUL byte")),
        false => Ok(Password::chosen(typed.expose())?),
    }
}

/// Shows a password if it was generated.
pub fn show(password: &Password) {
    if password.is_generated() {
        let text = zeroize::Zeroizing::new(password.expose());
        say(format_args!("  password   {}", String::from_utf8_lossy(&text)));
    }
}
