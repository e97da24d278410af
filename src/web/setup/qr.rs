//! A QR code as a picture on a page, for a phone.

use askama::Template;
use qrcode::{Color, QrCode};

/// The light margin that readers need, in modules (ISO 18004).
const MARGIN: usize = 4;

#[derive(Template)]
#[template(path = "qr.html")]
pub struct QrPicture {
    size: usize,
    /// The dark modules, as the path of an SVG.
    path: String,
}

impl QrPicture {
    pub fn of(text: &str) -> Option<Self> {
        let code = QrCode::new(text).ok()?;
        let width = code.width();
        let colors = code.to_colors();
        let dark = colors.iter().enumerate().filter(|(_, color)| **color == Color::Dark);
        let modules = dark.map(|(at, _)| format!("M{} {}h1v1h-1z", at % width + MARGIN, at / width + MARGIN));
        Some(Self { size: width + 2 * MARGIN, path: modules.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_margin_and_a_corner() {
        let picture = QrPicture::of("https://login.example.test/device?user_code=WDJB-MJHT").unwrap();
        assert_eq!((picture.size - 8 - 17) % 4, 0, "version n has 17 + 4n modules");
        assert!(picture.path.starts_with("M4 4h1v1h-1zM5 4h1v1h-1z"), "{}", picture.path);
    }
}
