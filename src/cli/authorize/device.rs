//! A person consents on any other machine, and enters a code there.

use std::io::IsTerminal as _;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use tokio::time::timeout;

use super::super::arguments::AuthorizeOptions;
use super::super::terminal::say;
use super::plan::{Plan, nobody_came};
use super::server::no_tokens;
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::oauth::Granted;
use crate::oauth::device_code::DeviceAuthorization;
use crate::token::TokenSet;
use crate::wire::printable;

impl Plan {
    /// Shows a code and where to enter it, and waits until the person has done so.
    pub async fn ask_with_code(&self, options: &AuthorizeOptions) -> Result<TokenSet, Failed> {
        let provider = &self.connector.provider;
        let endpoint = self.server.endpoints.device().ok_or_else(|| {
            let why = format!("the provider {} has no device_authorization_endpoint", provider.name);
            Failed::new(Exit::Config, why)
        })?;
        let (http, registration, clock) = (&self.connector.http, &self.registration, Clock::System);
        let pending = DeviceAuthorization::begin(http, registration, &endpoint, &self.server.scope, &clock).await;
        let pending = pending.map_err(|failure| no_tokens(&failure))?;
        self.show_code(&pending, options);
        let tokens = timeout(options.timeout, pending.tokens(http, registration, &clock)).await;
        let tokens = tokens.map_err(|_| nobody_came(options))?;
        let Granted { tokens, id_token, .. } = tokens.map_err(|failure| no_tokens(&failure))?;
        match self.whose(&tokens, id_token.as_deref(), None).await? {
            None => self.lasting(tokens).await,
            Some(other) => {
                self.give_back(&other, &tokens).await;
                Err(Failed::new(Exit::NoPermission, self.somebody_else(&other)))
            }
        }
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
        if let Some(picture) = picture(whole.as_str()).filter(|_| std::io::stdout().is_terminal()) {
            say(picture);
        }
        let life = humantime::format_duration(pending.life().min(options.timeout));
        say(format_args!("Waiting for up to {life}. Enter the code yourself, and do not give it to anybody."));
    }
}

/// Renders a QR code for a phone, two of its rows on each line. It draws the light parts, because most terminals are dark.
fn picture(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    Some(code.render().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_margin_and_its_three_corners() {
        let picture = picture("https://login.example.test/device?user_code=WDJB-MJHT").unwrap();
        let lines: Vec<Vec<char>> = picture.lines().map(|line| line.chars().collect()).collect();
        let width = lines[0].len();
        // Of a version n the side is 17 + 4n modules, and the margin 4 on each side (ISO 18004).
        assert_eq!((width - 8 - 17) % 4, 0);
        assert!(lines[..2].iter().flatten().all(|c| *c == '█'), "the margin is light:\n{picture}");
        let corner = |column: usize| lines[2][column..column + 7].iter().collect::<String>();
        assert_eq!([corner(4), corner(width - 11)], [" ▄▄▄▄▄ ", " ▄▄▄▄▄ "], "\n{picture}");
    }
}
