//! Shows a configuration without its secrets: complete for `/api/config`, as a summary for `check`.
//!
//! A new setting compiles only if it is `Serialize`. A [`Secret`](payout_domain::secret::Secret) serialises as
//! `[set]`. No other type that holds a key is `Serialize`; each field of such a type names one of the functions
//! below. A setting that is not given is null.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize as _, Serializer};
use serde_json::{Value, json};

use crate::telemetry::traces::Settings;
use payout_domain::route::MerchantPattern;
use payout_domain::secret::SET;
use payout_domain::wechat::Product;
use payout_domain::wechat::v3::request::Scene;
use payout_domain::wechat::v3::sign::VerifyingKey;

use super::units::{ByteSize, show};
use super::{Backend, Certificate, ClientIp, Config, IdentitySource, LedgerStore, To};

/// Replaces the content of a file that is no secret, but long.
const GIVEN: &str = "[given]";

/// The configuration as JSON, under the file's key names, without any secret.
///
/// # Errors
/// Returns the serialiser's error. No known configuration causes one.
pub(crate) fn redacted(config: &Config) -> Result<Value, serde_json::Error> {
    serde_json::to_value(config)
}

/// A summary for the operator, one fact per line: listeners, stores, backend, and how each merchant pays.
#[must_use]
pub(crate) fn summary(config: &Config) -> Vec<String> {
    let tls = if config.server.tls.is_some() { " (TLS)" } else { "" };
    let mut lines = vec![
        format!("main port   {}{tls}", config.server.listen),
        format!("admin port  {}", config.admin.listen),
        format!(
            "identity    {}",
            match &config.identity {
                IdentitySource::Redis {
                    server, key, field, ..
                } => format!(
                    "{}, {key}{}",
                    server.url,
                    field.as_ref().map_or_else(String::new, |f| format!(" field {f}"))
                ),
                IdentitySource::File { path } => path.display().to_string(),
            }
        ),
        format!(
            "ledger      {}, kept for {}",
            match &config.ledger.store {
                LedgerStore::Redis { server, prefix, .. } => format!("{}, {prefix}*", server.url),
                LedgerStore::File { path } => path.display().to_string(),
            },
            show(config.ledger.retention)
        ),
        format!(
            "backend     {}",
            config.backend.as_ref().map_or_else(
                || "none: other paths are answered 404".to_owned(),
                |backend| backend.url.to_string()
            )
        ),
    ];
    lines.extend(config.merchants.iter().map(|merchant| {
        let to = match &merchant.to {
            To::Handler(handler) => format!("handler {}", handler.url),
            To::Wechat(wechat) => format!("{} at {}", product(wechat.product), config.wechat.base_url),
            To::TransferBill(bill) => {
                let notified = bill.notify_path.as_deref().map_or_else(String::new, |path| {
                    format!(", notifications at {path} of the main port")
                });
                format!("transfer-bill at {}{notified}", config.wechat.base_url)
            }
        };
        let old = if merchant.settle_only {
            ", no new orders"
        } else {
            ""
        };
        format!("{}: {to}{old}", merchant.name)
    }));
    lines
}

/// A product's name in the file.
fn product(product: Product) -> &'static str {
    match product {
        Product::Redpack => "redpack",
        Product::MiniProgramRedpack => "mini-program-redpack",
        Product::Transfer => "transfer",
    }
}

pub(super) fn text<S: Serializer>(text: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(text)
}

pub(super) fn texts<S: Serializer>(texts: &[impl Display], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(texts.iter().map(ToString::to_string))
}

/// A path that is not UTF-8 gets replacement characters.
pub(super) fn path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

pub(super) fn files<S: Serializer>(files: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(files.iter().map(|file| file.display().to_string()))
}

/// A duration. An absent one shows as zero, as the file writes it.
pub(super) fn span<S: Serializer>(
    span: &(impl Copy + Into<Option<Duration>>),
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_str(&show((*span).into().unwrap_or_default()))
}

pub(super) fn size<S: Serializer>(bytes: &usize, to: S) -> Result<S::Ok, S::Error> {
    limit(&u64::try_from(*bytes).ok(), to)
}

pub(super) fn limit<S: Serializer>(bytes: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    bytes
        .map(|bytes| ByteSize(bytesize::ByteSize(bytes)))
        .serialize(to)
}

pub(super) fn given<S: Serializer>(pem: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
    pem.as_ref().map(|_| GIVEN).serialize(to)
}

pub(super) fn key<T, S: Serializer>(
    key: &(impl Clone + Into<Option<Arc<T>>>),
    to: S,
) -> Result<S::Ok, S::Error> {
    key.clone().into().map(|_| SET).serialize(to)
}

pub(super) fn certificate<S: Serializer>(
    certificate: &(impl Clone + Into<Option<Arc<Certificate>>>),
    to: S,
) -> Result<S::Ok, S::Error> {
    let shown = |certificate: Arc<Certificate>| json!({ "serial": certificate.serial(), "not_after_ms": certificate.not_after().0 });
    certificate.clone().into().map(shown).serialize(to)
}

pub(super) fn client_ip<S: Serializer>(client_ip: &ClientIp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map([("value", client_ip)])
}

pub(super) fn answer<S: Serializer>(reveal_openid: &bool, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map([("reveal_openid", reveal_openid)])
}

pub(super) fn backend<S: Serializer>(backend: &Option<Backend>, to: S) -> Result<S::Ok, S::Error> {
    match backend {
        Some(backend) => backend.serialize(to),
        None => to.collect_map([("url", ())]),
    }
}

pub(super) fn pattern<S: Serializer>(pattern: &MerchantPattern, to: S) -> Result<S::Ok, S::Error> {
    let mch_id = pattern.mch_id.as_ref().map_or("*", |id| id.as_str());
    let wx_app_id = pattern.wx_app_id.as_ref().map_or("*", |id| id.as_str());
    to.collect_map([("mch_id", mch_id), ("wx_app_id", wx_app_id)])
}

pub(super) fn public_key<S: Serializer>(
    key: &Option<(String, Arc<VerifyingKey>)>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let id = key.as_ref().map(|(id, _)| id.as_str());
    to.collect_map([("public_key_id", id), ("public_key", id.map(|_| GIVEN))])
}

pub(super) fn scene<S: Serializer>(scene: &Scene, to: S) -> Result<S::Ok, S::Error> {
    let reports = scene.reports.iter();
    let reports = reports.map(|(kind, content)| json!({ "info_type": kind, "info_content": content }));
    to.collect_map([
        ("transfer_scene_id", json!(scene.id)),
        ("user_recv_perception", json!(scene.perception)),
        ("scene_report_infos", reports.collect()),
        ("notify_url", json!(scene.notify_url)),
    ])
}

pub(super) fn otlp<S: Serializer>(settings: &Option<Settings>, to: S) -> Result<S::Ok, S::Error> {
    settings.as_ref().map(|settings| &settings.url).serialize(to)
}
