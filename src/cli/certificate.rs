//! `postkey certificate`: shows postkey's own certificate authority, and writes it for other machines.
//!
//! It reads the files itself, so it also works beside a daemon and without one. It never creates anything.

use std::io::{IsTerminal as _, Write as _};

use super::terminal::say;
use crate::certificates::{Issued, Machine, PublicPart, fingerprint, pem, read_stored};
use crate::config::Config;
use crate::exit::{Exit, Failed};

/// How to import the authority in each kind of program.
const IMPORT: &str = include_str!("../../config/import.txt");

pub fn run(config: &Config, as_pem: bool, as_der: bool) -> Result<(), Failed> {
    let public = read(config)?;
    if as_pem {
        say(pem("CERTIFICATE", &public.root).trim_end());
        return Ok(());
    }
    if as_der {
        return write_der(&public.root);
    }
    show(config, &public);
    Ok(())
}

fn read(config: &Config) -> Result<PublicPart, Failed> {
    if !config.has_own_certificate() {
        let text = "no listener has a certificate of postkey's own authority; set certificate = \"own\" in a [[listener]] with \
                    security = \"tls\" or \"starttls\", and start or reload postkey";
        return Err(Failed::new(Exit::Config, text));
    }
    PublicPart::read(&config.state_dir)?.ok_or_else(|| {
        let text = format!(
            "there is no certificate authority in {} yet; postkey creates it when it starts or reloads with this configuration",
            config.state_dir.display()
        );
        Failed::new(Exit::Unavailable, text)
    })
}

fn write_der(root: &[u8]) -> Result<(), Failed> {
    let mut output = std::io::stdout();
    if output.is_terminal() {
        let text = "DER is not text; write it to a file with `postkey certificate --der > postkey.cer`";
        return Err(Failed::new(Exit::Usage, text));
    }
    output.write_all(root).map_err(|error| Failed::new(Exit::Io, format!("cannot write the certificate: {error}")))
}

fn show(config: &Config, public: &PublicPart) {
    let name = Issued::read(&public.root).map(|root| root.subject).unwrap_or_default();
    say("The certificate authority of this postkey");
    say(format_args!("  name         {name}"));
    say(format_args!("  SHA-256      {}", fingerprint(&public.root)));
    say(format_args!("  valid until  {}", public.about.ends));
    say(format_args!("  signs for    {}", listing(&public.about.permitted)));
    say("\nThe certificate of the listeners");
    match read_stored(&config.state_dir) {
        Some(about) => {
            say(format_args!("  names        {}", listing(&about.names)));
            say(format_args!("  valid until  {}; postkey renews it", about.ends));
            let mut missing = Machine::here().names(&config.listeners);
            missing.retain(|name| !about.names.contains(name));
            if !missing.is_empty() {
                say(format_args!("  lacks        {}", listing(&missing)));
            }
        }
        None => say("  none yet; postkey issues it when it starts or reloads"),
    }
    say(format_args!("\n{}", IMPORT.trim_end()));
}

fn listing<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
