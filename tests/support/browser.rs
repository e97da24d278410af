//! A browser without a screen, which keeps cookies and sends what browsers send.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::{Url, form_urlencoded};

use super::waiting::PATIENCE;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// A browser that has come with a link.
#[derive(Clone, Debug)]
pub struct Browser {
    /// The link's scheme, host and port.
    pub base: Url,
    pub cookie: String,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl Answer {
    fn read(heard: &str) -> Self {
        let (head, text) = heard.split_once("\r\n\r\n").unwrap_or((heard, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let is_chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        Self { status, headers, text: if is_chunked { joined(text.as_bytes()) } else { text.to_owned() } }
    }

    /// Where it leads.
    pub fn place(&self) -> &str {
        self.headers.get("location").map_or("", String::as_str)
    }

    /// The key that the page's forms send.
    pub fn key(&self) -> &str {
        let hidden = self.text.split_once("name=\"key\" value=\"");
        hidden.and_then(|(_, rest)| rest.split_once('"')).map_or("", |(key, _)| key)
    }

    /// The text of the first element with this id.
    pub fn element(&self, id: &str) -> &str {
        let begun = self.text.split_once(&format!("id=\"{id}\"")).and_then(|(_, rest)| rest.split_once('>'));
        begun.and_then(|(_, rest)| rest.split_once('<')).map_or("", |(text, _)| text.trim())
    }

    /// Where the first link with this text leads.
    pub fn link(&self, text: &str) -> String {
        let before =
            self.text.split_once(&format!("\">{text}")).unwrap_or_else(|| panic!("no {text:?} in {}", self.text)).0;
        let target = before.rsplit_once("href=\"").expect("a link").1;
        target.replace("&amp;", "&").replace("&#38;", "&")
    }
}

/// The content of a body that has come in chunks (RFC 9112 section 7.1).
fn joined(mut body: &[u8]) -> String {
    let mut content = Vec::new();
    while let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let (Some(size @ 1..), begin) = (size, end + 2) else { break };
        content.extend_from_slice(&body[begin..begin + size]);
        body = &body[begin + size + 2..];
    }
    String::from_utf8(content).expect("text")
}

/// Sends a whole request, and reads the answer until the connection ends.
pub async fn exchange(base: &Url, request: &str) -> Answer {
    let mut socket = TcpStream::connect(("127.0.0.1", base.port().expect("a port"))).await.expect("the page is open");
    socket.write_all(request.as_bytes()).await.expect("it is read");
    let mut heard = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("an end");
    Answer::read(&String::from_utf8_lossy(&heard))
}

impl Browser {
    /// Opens a link that is good once.
    pub async fn enter(link: &str) -> Self {
        let base = Url::parse(link).expect("a link");
        let (host, path) = (base.authority(), base.path());
        let answer =
            exchange(&base, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: none\r\n\r\n")).await;
        // Without an account, the overview would be empty.
        assert!(answer.status == 303 && ["/", "/add"].contains(&answer.place()), "{answer:?}");
        let cookie = answer.headers["set-cookie"].split(';').next().unwrap_or_default().to_owned();
        Self { base, cookie }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "Sec-Fetch-Site: same-origin\r\n", "").await
    }

    /// Sends a form of one of the pages, with the key of its session.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let key = self.get("/add").await.key().to_owned();
        let body =
            form_urlencoded::Serializer::new(String::new()).append_pair("key", &key).extend_pairs(fields).finish();
        let origin = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", self.base.authority());
        self.send("POST", path, &origin, &body).await
    }

    /// Sends a request with the cookie and these headers. Unless they say otherwise, the body is a usual form.
    pub async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let (host, cookie) = (self.base.authority(), &self.cookie);
        let kind = if headers.contains("Content-Type:") { "" } else { FORM };
        let form = match method {
            "POST" => format!("{kind}Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n{headers}{form}\r\n{body}");
        exchange(&self.base, &request).await
    }
}
