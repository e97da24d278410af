//! The browser of the user who runs a command.

use url::Url;

use crate::web::beginning::Beginning;

/// Starts a browser and redirects it to this page.
pub fn start_browser(page: &Url) -> Option<Beginning> {
    let beginning = Beginning::of(page).ok()?;
    let url = beginning.url.clone();
    // Some browsers block their caller, which has to redirect the browser meanwhile.
    std::thread::spawn(move || {
        let quiet = webbrowser::BrowserOptions::new().with_suppress_output(true).clone();
        let _opened = webbrowser::open_browser_with_options(webbrowser::Browser::Default, url.as_str(), &quiet);
    });
    Some(beginning)
}

/// Whether a browser can be opened: there is a display, or the user has named a browser.
pub fn has_display() -> bool {
    ["BROWSER", "DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Whether the display belongs to the user who runs this. Root's browser would run with all privileges, and after
/// sudo(8), doas(1) or pkexec(1) the display belongs to another user.
pub fn is_own_session() -> bool {
    let became = ["SUDO_UID", "DOAS_USER", "PKEXEC_UID"].iter().any(|name| std::env::var_os(name).is_some());
    !rustix::process::geteuid().is_root() && !became
}
