//! The HTTP client for parties that are named by their address and speak no TLS: the admin port, the demo's sidecar, where the
//! stub sends its notifications. It asks once and nobody else: no proxy of the environment, no redirect, no repetition.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use rustls::{ClientConfig, RootCertStore};

/// A client whose exchanges take at most `timeout`.
///
/// # Errors
/// When the libraries refuse their settings, then why.
pub(crate) fn plain_client(timeout: Duration) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    // Left to itself the library looks for this machine's roots, and the image has none. Nobody is trusted by these.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(timeout)
        .build()?)
}
