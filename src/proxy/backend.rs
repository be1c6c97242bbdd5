//! The backend's address, and the only constructor of the client for it. `forward.rs` uses them.

use std::time::Duration;

use http::Uri;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::exchange::Upload;
use crate::http::base_url::BaseUrl;
use crate::http::line::Lines;

/// How long a connection attempt to the backend may take. The backend runs next to the sidecar.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the pool keeps an idle connection: less than the 5 s after which Node.js and uvicorn close theirs.
const IDLE: Duration = Duration::from_secs(4);
/// The most idle connections in the pool.
const MAX_IDLE: usize = 128;
/// The kernel's buffer per socket and direction, in bytes. A cgroup's limit counts it.
const SOCKET_BUFFER: usize = 64 * 1024;
/// The idle time after which TCP keep-alive probes a connection: an upgraded one may be silent for hours.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The host name under which the client's pool keeps connections, whatever the backend's address is. It has one letter
/// because the pool hashes it twice per request, letter by letter.
const POOL: &str = "b";

/// The client for the backend.
pub(super) type BackendClient = Client<Lines, Upload>;

/// Where to forward requests: `http://host:port`, and a prefix for their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    url: BaseUrl,
    authority: Authority,
}

impl Backend {
    /// The backend at this URL. The configuration has checked that its scheme is `http`.
    #[must_use]
    pub(crate) fn new(url: BaseUrl) -> Self {
        Self {
            // A base URL always has an authority, so the fallback is never used.
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
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The URI to give the client for the request `asked`: the same path and query byte for byte, after the base path,
    /// with the pool's name as host. `None` if the request has no path, as with `CONNECT`.
    #[must_use]
    pub(crate) fn uri(&self, asked: &Uri) -> Option<Uri> {
        let asked_path = asked.path_and_query()?;
        // `OPTIONS *` asks about the whole server, which has no base path.
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

/// The client for one backend. It sets every option explicitly, even those that equal today's defaults. `read_ahead` is
/// the most bytes of a response's head, and of a body read ahead of a slow caller, at least 8 KiB. `most` limits the
/// idle connections in the pool.
pub(super) fn client(backend: &Backend, read_ahead: usize, most: usize) -> BackendClient {
    let mut connector = HttpConnector::new();
    // If the backend does not accept in time, the caller gets an error instead of a longer wait.
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // Heads and chunks are written whole, so waiting for more data only delays them.
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    if read_ahead < SOCKET_BUFFER {
        // With little memory, bound the kernel's buffers too.
        connector.set_recv_buffer_size(Some(SOCKET_BUFFER));
        connector.set_send_buffer_size(Some(SOCKET_BUFFER));
    }
    connector.enforce_http(true);
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE.min(most))
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        // Backends speak HTTP/1; HTTP/2 without TLS would need an agreement with them.
        .http2_only(false)
        // The caller's `Host` passes unchanged.
        .set_host(false)
        // Retries a request on another connection only if not one byte of it was written. The caller decides about
        // every other repeat.
        .retry_canceled_requests(true)
        .http1_max_buf_size(read_ahead)
        // A broken head from the backend is an error; the client must not guess its meaning.
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
