//! What all checks share: the sources of secrets, the current time, and the list of mistakes.
//!
//! A check records each mistake under the key's path and returns a substitute value or `None`. So one pass over
//! the configuration finds all mistakes.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use payout_domain::ids::Millis;
use payout_domain::secret::Secret;

use super::CertificateError;
use super::address::{self, Path};
use super::certificate::{Certificate, holds_certificates};
use super::errors::Problems;
use super::secret_ref::{SecretRef, SecretSources};
use super::units::{Span, show};
use crate::http::base_url::BaseUrl;

/// The longest timeout that the checks accept. A longer one is probably a slip.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long before a certificate's expiry the checks begin to warn.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 86_400);

/// What each check needs: where to find secrets, the current time, and where to record mistakes.
pub(super) struct Check<'a> {
    pub(super) sources: &'a mut SecretSources,
    pub(super) now: Millis,
    pub(super) problems: &'a mut Problems,
}

impl Check<'_> {
    /// Records a mistake.
    pub(super) fn error(&mut self, path: &str, text: impl std::fmt::Display) {
        self.problems.error(path, text);
    }

    /// Returns the value, or records its mistake.
    pub(super) fn take<T>(&mut self, path: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|text| self.error(path, text)).ok()
    }

    /// Resolves a secret that may be absent.
    pub(super) fn secret(&mut self, secret: Option<&SecretRef>, path: &str) -> Option<Secret> {
        let read = self.sources.resolve(secret?);
        self.take(path, read)
    }

    /// Reads the file that a key names, as bytes.
    pub(super) fn bytes(&mut self, file: &str, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        let read = self.sources.read(file);
        self.take(path, read)
    }

    /// Reads the file that a key names, as text.
    pub(super) fn file_text(&mut self, file: &str, path: &str) -> Option<Secret> {
        let read = self.sources.read_text(file);
        self.take(path, read)
    }

    /// Reads a file of CA certificates (PEM, at least one).
    pub(super) fn ca(&mut self, file: Option<&str>, path: &str) -> Option<String> {
        let text = self.file_text(file?, path)?;
        if !holds_certificates(text.expose()) {
            self.error(
                path,
                "the file holds no certificate in PEM: give the CA's certificate",
            );
        }
        Some(text.expose().to_owned())
    }

    /// Checks a duration of more than zero and at most an hour.
    pub(super) fn timeout(&mut self, span: Span, path: &str) -> Duration {
        if span.0.is_zero() || span.0 > LONGEST_TIMEOUT {
            self.error(
                path,
                format!(
                    "must be more than 0s and at most {}, not {}",
                    show(LONGEST_TIMEOUT),
                    show(span.0)
                ),
            );
        }
        span.0
    }

    /// Checks a duration of at most an hour; zero is allowed.
    pub(super) fn pause(&mut self, span: Span, path: &str) -> Duration {
        if span.0 > LONGEST_TIMEOUT {
            self.error(
                path,
                format!("must be at most {}, not {}", show(LONGEST_TIMEOUT), show(span.0)),
            );
        }
        span.0
    }

    /// Checks a number of at least `least`.
    pub(super) fn count(&mut self, number: i64, least: usize, path: &str) -> usize {
        usize::try_from(number)
            .ok()
            .filter(|count| *count >= least)
            .unwrap_or_else(|| {
                self.error(
                    path,
                    format!("must be a whole number from {least} on, not {number}"),
                );
                least
            })
    }

    /// Checks the URL of an HTTP upstream.
    pub(super) fn url(&mut self, url: &str, path: &str, parts: Path, example: &str) -> Option<BaseUrl> {
        let read = address::http_url(url, parts, example);
        self.take(path, read)
    }

    /// Unwraps a certificate: records what is wrong with it at `path`, and warns if it expires soon. `whose`
    /// names its owner.
    pub(super) fn certificate(
        &mut self,
        read: Result<Certificate, CertificateError>,
        path: &str,
        whose: &str,
    ) -> Option<Arc<Certificate>> {
        match read {
            Ok(certificate) => {
                if let Some(days) = certificate.days_left_within(EXPIRY_WARNING, self.now) {
                    self.problems.warn(
                        path,
                        format!("the certificate of {whose} expires in {days} days: renew it"),
                    );
                }
                Some(Arc::new(certificate))
            }
            Err(error) => {
                self.error(path, format!("{error} ({whose})"));
                None
            }
        }
    }

    /// Warns about keys that have no effect with the chosen store or product.
    pub(super) fn idle(&mut self, section: &str, keys: &[&str], chosen: &str) {
        for key in keys {
            let path = format!("{section}.{key}");
            if self.problems.origins.is_given(&path) {
                self.problems.warn(&path, format!("has no effect with {chosen}"));
            }
        }
    }
}
