//! A person consents on any other machine, and enters a code there.

use std::io::IsTerminal as _;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use tokio::time::timeout;

use super::super::arguments::AuthorizeOptions;
use super::super::terminal::say;
use super::preparation::nobody_signed_in;
use crate::authorization::{Plan, SignInError};
use crate::exit::{Exit, Failed};
use crate::oauth::device_code::DeviceAuthorization;
use crate::token::TokenSet;
use crate::wire::printable;

impl Plan {
    /// Shows a code and where to enter it, and waits until the person has done so.
    pub async fn sign_in_by_code(&self, options: &AuthorizeOptions) -> Result<TokenSet, Failed> {
        let consent = self.begin_on_device().await?;
        self.show_code(&consent.0, options);
        let tokens = timeout(options.timeout, self.await_device(&consent)).await;
        tokens.map_err(|_| nobody_signed_in(options))?.map_err(|error| match error {
            SignInError::SomebodyElse(other) => Failed::new(
                Exit::NoPermission,
                format!(
                    "{}. If {other} should sign in for this mailbox, stop this command and add `--signs-in {other}`",
                    self.somebody_else(&other)
                ),
            ),
            SignInError::Failed(failed) => failed,
        })
    }

    fn show_code(&self, pending: &DeviceAuthorization, options: &AuthorizeOptions) {
        self.show_note();
        say(format_args!(
            "To give postkey access to {}, open this page on any machine and enter the code:\n\n  {}\n  {}\n",
            self.address,
            pending.verification_uri,
            printable(&pending.user_code)
        ));
        if let Some(complete) = &pending.verification_uri_complete {
            say(format_args!("Or open this page, which already contains the code:\n\n  {complete}\n"));
        }
        let whole = pending.verification_uri_complete.as_ref().unwrap_or(&pending.verification_uri);
        if let Some(code) = qr_code(whole.as_str()).filter(|_| std::io::stdout().is_terminal()) {
            say(code);
        }
        let life = humantime::format_duration(pending.life().min(options.timeout));
        say(format_args!("Waiting for up to {life}. Enter the code yourself, and do not give it to anybody."));
    }
}

/// Renders a QR code for a phone, two of its rows on each line. It draws the light parts, because most terminals are
/// dark.
fn qr_code(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    Some(code.render().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_has_its_margin_and_its_corners() {
        let code = qr_code("https://login.example.test/device?user_code=WDJB-MJHT").unwrap();
        let lines: Vec<Vec<char>> = code.lines().map(|line| line.chars().collect()).collect();
        let width = lines[0].len();
        // Version n has 17 + 4n modules on each side, and a margin of 4 (ISO 18004).
        assert_eq!((width - 8 - 17) % 4, 0);
        assert!(lines[..2].iter().flatten().all(|c| *c == '█'), "the margin is light:\n{code}");
        let corner = |column: usize| lines[2][column..column + 7].iter().collect::<String>();
        assert_eq!([corner(4), corner(width - 11)], [" ▄▄▄▄▄ ", " ▄▄▄▄▄ "], "\n{code}");
    }
}
