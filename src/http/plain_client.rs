//! The HTTP client for services that are named by their address and use no TLS: the admin port and the demo's sidecar.
//! It sends each request once and to that address only: no proxy from the environment, no redirects, no retries.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use rustls::{ClientConfig, RootCertStore};

/// A client whose exchanges take at most `timeout`.
///
/// # Errors
/// The library's error if it refuses the settings.
pub(crate) fn plain_client(timeout: Duration) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    // By default the library loads the machine's roots, and the image has none. This empty store trusts nobody.
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
