//! The backend's address, and the one constructor of the client that reaches it. What is done with an exchange is
//! `forward.rs`.

use std::time::Duration;

use http::Uri;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::exchange::Upload;
use crate::http::base_url::BaseUrl;
use crate::http::line::Lines;

/// How long the backend, which stands beside us, may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an unused connection to the backend is kept: less than the 5 s after which Node.js and uvicorn close theirs.
const IDLE: Duration = Duration::from_secs(4);
/// The most unused connections that are kept.
const MAX_IDLE: usize = 128;
/// How much waits in the kernel in either direction, in bytes: a cgroup's limit counts it.
const SOCKET_BUFFER: usize = 64 * 1024;
/// After how long a silent connection is asked whether the other side still lives: an upgraded one may be silent for hours.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Whose connections the client's pool keeps: the backend's, whatever its address is. The pool hashes the name twice for
/// each request, letter by letter, so it has one.
const POOL: &str = "b";

/// The client that speaks to the backend.
pub(super) type BackendClient = Client<Lines, Upload>;

/// Where requests are forwarded to: `http://host:port`, and a path that is put before theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    url: BaseUrl,
    authority: Authority,
}

impl Backend {
    /// The backend at this URL, which the configuration has checked to be `http`.
    #[must_use]
    pub fn new(url: BaseUrl) -> Self {
        Self {
            // A base URL has an authority.
            authority: url
                .uri()
                .authority()
                .cloned()
                .unwrap_or_else(|| Authority::from_static(POOL)),
            url,
        }
    }

    /// Its host and port, as configured.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The URI for the client of a request for this one: the same path and query byte for byte, after the base path, and
    /// the name of the pool. `None` where the request names no path, as `CONNECT` does.
    #[must_use]
    pub fn uri(&self, asked: &Uri) -> Option<Uri> {
        let asked_path = asked.path_and_query()?;
        // `OPTIONS *` is about the server as a whole, which has no base path.
        let base = self.url.path();
        let path = if base.is_empty() || asked_path.path() == "*" {
            asked_path.clone()
        } else {
            let text = match asked_path.query() {
                Some(query) => format!("{}{}?{query}", base, asked_path.path()),
                None => format!("{}{}", base, asked_path.path()),
            };
            PathAndQuery::try_from(text).ok()?
        };
        let mut parts = uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(Authority::from_static(POOL));
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).ok()
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.url.fmt(f)
    }
}

/// The client of one backend, every option written although some equal today's defaults. `read_ahead` is the most bytes of an answer's
/// head, and of a body that are read ahead of a slow caller, at least 8 KiB; `most` the most unused connections that are kept.
pub(super) fn client(backend: &Backend, read_ahead: usize, most: usize) -> BackendClient {
    let mut connector = HttpConnector::new();
    // A backend that does not accept is told to the caller, not waited for.
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // Heads and chunks are written whole: waiting for more only delays them.
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    if read_ahead < SOCKET_BUFFER {
        // Where memory is little, the kernel's part of it is bounded as well.
        connector.set_recv_buffer_size(Some(SOCKET_BUFFER));
        connector.set_send_buffer_size(Some(SOCKET_BUFFER));
    }
    connector.enforce_http(true);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE.min(most))
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        // What backends speak; HTTP/2 without TLS would need to be agreed on.
        .http2_only(false)
        // The caller's Host passes unchanged.
        .set_host(false)
        // Only a request of which not one byte was written goes to another connection; any other one is the caller's to
        // repeat.
        .retry_canceled_requests(true)
        .http1_max_buf_size(read_ahead)
        // A backend's broken head is an error, and nothing to be guessed at.
        .http1_allow_obsolete_multiline_headers_in_responses(false)
        .http1_allow_spaces_after_header_name_in_responses(false)
        .http1_ignore_invalid_headers_in_responses(false)
        .http09_responses(false)
        .http1_title_case_headers(false)
        .build(Lines {
            connector,
            to: backend.url.uri().clone(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_pass_byte_for_byte_after_the_base() {
        let asked = [
            "/",
            "/a//b/../c;x=1/%2F%zz?q=%20+&&a=/?",
            "/?",
            "/a?b",
            "*",
            "http://other:9/x?y",
            "http://other?y",
        ];
        let plain = ["/", asked[1], "/?", "/a?b", "*", "/x?y", "/?y"];
        let based = [
            "/base/".to_owned(),
            format!("/base{}", asked[1]),
            "/base/?".to_owned(),
            "/base/a?b".to_owned(),
            "*".to_owned(),
            "/base/x?y".to_owned(),
            "/base/?y".to_owned(),
        ];
        let (root, base) = (
            Backend::new("http://app:1".parse().unwrap()),
            Backend::new("http://app:1/base".parse().unwrap()),
        );
        for ((asked, plain), based) in asked.iter().zip(plain).zip(based) {
            let asked: Uri = asked.parse().unwrap();
            for (backend, path) in [(&root, plain), (&base, based.as_str())] {
                let uri = backend.uri(&asked).unwrap();
                let sent = uri.path_and_query().unwrap().to_string();
                assert_eq!(sent, path);
            }
        }
        assert_eq!(root.uri(&"app:443".parse().unwrap()), None, "CONNECT");
    }
}
