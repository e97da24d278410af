//! The fate of each account that was found, and what the configuration needs for it.

use std::path::PathBuf;

use super::super::arguments::ImportOptions;
use super::account::{ImportedAccount, ImportedFiles, ImportedListener, ImportedTokens, signs_in};
use super::block::Block;
use super::configuration::Addition;
use super::provider::ImportProviders;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::control::Status;
use crate::exit::{Exit, Failed};
use crate::name::Name;

/// Everything that an import would do.
pub struct ImportPlan {
    pub accounts: Vec<PlannedAccount>,
    pub listeners: Vec<PlannedListener>,
    /// Settings that cannot be taken over, with the name of the program.
    pub left: Vec<(&'static str, String)>,
    /// The programs whose files these are.
    pub programs: Vec<&'static str>,
    /// The configuration file.
    pub file: PathBuf,
    /// What the configuration needs.
    pub block: Block,
    /// Advice for the user before the import.
    pub warnings: Vec<String>,
    /// The extended configuration, if it is to be written.
    pub addition: Option<Addition>,
}

pub struct PlannedAccount {
    pub program: &'static str,
    pub account: ImportedAccount,
    pub fate: Fate,
}

/// What becomes of an account.
pub enum Fate {
    /// It is imported, for this provider.
    Import(String),
    /// postkey has an account with this address.
    Exists,
    /// It has no tokens, so somebody has to sign in, at this provider.
    SignIn(String),
    Impossible(String),
}

pub struct PlannedListener {
    pub listener: ImportedListener,
    /// The provider to which it leads; None if it leads to several.
    pub provider: Option<String>,
}

impl ImportPlan {
    pub fn new(
        config: &Config,
        file: PathBuf,
        mut found: Vec<ImportedFiles>,
        status: &Status,
        options: &ImportOptions,
    ) -> Result<Self, Failed> {
        for account in found.iter_mut().flat_map(|found| &mut found.accounts) {
            complete(account, options);
        }
        let mut providers = ImportProviders::new(config, found.iter().flat_map(|found| &found.listeners).collect());
        let mut fates = Vec::new();
        let mut entries = Vec::new();
        let mut left = Vec::new();
        for ImportedFiles { program, accounts, domains, left: own, .. } in &found {
            left.extend(own.iter().map(|why| (*program, why.clone())));
            for account in accounts {
                let fate = fate(config, account, status, options, &mut providers);
                entries.extend(fate.provider().map(|provider| (account, provider.to_owned())));
                fates.push(fate);
            }
            for domain in domains {
                match providers.find(domain, options.provider.as_deref()) {
                    Ok(provider) => entries.push((domain, provider)),
                    Err(why) => left.push((*program, format!("{}: {why}", domain.address))),
                }
            }
        }
        let mut block = Block::default();
        providers.new.iter().for_each(|new| block.add_provider(new));
        entries.iter().for_each(|(account, provider)| block.add_account(account, provider));
        let ports: Vec<_> =
            found.iter().flat_map(|found| &found.listeners).map(|listener| providers.of_listener(listener)).collect();
        let mut plan = Self {
            accounts: Vec::new(),
            listeners: Vec::new(),
            left,
            programs: found.iter().map(|found| found.program).collect(),
            file,
            block,
            warnings: found.iter().flat_map(|found| found.warnings.clone()).collect(),
            addition: None,
        };
        plan.take(found, fates, ports);
        plan.extend_configuration(options, !status.accounts.is_empty())?;
        Ok(plan)
    }

    /// Takes accounts and ports, each with what was found out about it, in the same order.
    fn take(&mut self, found: Vec<ImportedFiles>, fates: Vec<Fate>, ports: Vec<Result<Option<String>, String>>) {
        let (mut fates, mut ports) = (fates.into_iter(), ports.into_iter());
        for ImportedFiles { program, accounts, listeners, .. } in found {
            let accounts = accounts.into_iter().zip(&mut fates);
            self.accounts.extend(accounts.map(|(account, fate)| PlannedAccount { program, account, fate }));
            for (listener, provider) in listeners.into_iter().zip(&mut ports) {
                match provider {
                    Ok(provider) => self.listeners.push(PlannedListener { listener, provider }),
                    Err(why) => self.left.push((program, format!("[{}]: {why}", listener.name))),
                }
            }
        }
    }

    /// Adds the listeners, and checks the extended configuration, if it is to be written. Mail programs of existing accounts
    /// may use the default listeners.
    fn extend_configuration(&mut self, options: &ImportOptions, has_accounts: bool) -> Result<(), Failed> {
        if options.keep_ports {
            for PlannedListener { listener, provider } in &self.listeners {
                self.warnings.extend(self.block.add_listener(listener, provider.as_deref()));
            }
        }
        if !(options.write || options.keep_ports) || self.block.is_empty() {
            return Ok(());
        }
        let addition = Addition::new(self.file.clone(), &self.block)?;
        if has_accounts && options.keep_ports && !self.listeners.is_empty() && addition.ends_default_listeners() {
            self.warnings.push(format!(
                "{} has no [[listener]], so postkey has listened on its default ports, 1143, 1110 and 1587. With those below \
                 it listens only on them",
                self.file.display()
            ));
        }
        self.addition = Some(addition);
        Ok(())
    }

    pub fn importable(&self) -> impl Iterator<Item = &PlannedAccount> {
        self.accounts.iter().filter(|account| matches!(account.fate, Fate::Import(_)))
    }

    /// # Errors
    ///
    /// There is nothing to import, or the configuration has to be extended first.
    pub fn check(&self) -> Result<(), Failed> {
        if self.importable().next().is_none() {
            let why = "none of these accounts can be imported, for the reasons above; nothing was changed";
            return Err(Failed::new(Exit::Data, why));
        }
        if self.addition.is_none() && !self.block.is_empty() {
            let why = format!(
                "the configuration needs the tables above; add `--write` to have them added to {}, or add them yourself. \
                 Nothing was changed",
                self.file.display()
            );
            return Err(Failed::new(Exit::Config, why));
        }
        Ok(())
    }
}

impl Fate {
    fn provider(&self) -> Option<&str> {
        match self {
            Self::Import(provider) | Self::SignIn(provider) => Some(provider),
            Self::Exists | Self::Impossible(_) => None,
        }
    }
}

/// Adds what the command line says about an account.
fn complete(account: &mut ImportedAccount, options: &ImportOptions) {
    if account.address.is_empty() {
        account.address = options.address.as_deref().map(|name| Name::typed(name).into()).unwrap_or_default();
    }
    if options.client_id.is_some() {
        account.client_id.clone_from(&options.client_id);
        account.client_secret = None;
    }
}

fn fate(
    config: &Config,
    account: &ImportedAccount,
    status: &Status,
    options: &ImportOptions,
    providers: &mut ImportProviders<'_>,
) -> Fate {
    if status.account(&account.address).is_some() || status.damaged.contains(&account.address) {
        return Fate::Exists;
    }
    if account.address.is_empty() {
        return Fate::Impossible("the file does not say whose tokens these are; add `--address ADDRESS`".to_owned());
    }
    let provider = match providers.find(account, options.provider.as_deref()) {
        Ok(provider) => provider,
        Err(why) => return Fate::Impossible(why),
    };
    let known = config.providers.get(&provider);
    let has_client = account.client_id.is_some()
        || account.flow == Flow::JwtBearer
        || known.is_some_and(|known| config.client_for(&account.address, known).is_some());
    match account.tokens {
        ImportedTokens::Missing if signs_in(account.flow) => Fate::SignIn(provider),
        _ if !has_client => {
            Fate::Impossible("the file does not say to which client its tokens belong; add `--client-id ID`".to_owned())
        }
        _ => Fate::Import(provider),
    }
}
