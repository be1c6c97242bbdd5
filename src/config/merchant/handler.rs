//! The entries with `to = "handler"`: their keys in the file, the checks, and what the program gets.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use super::{Entry, WechatKeys, key_names, wechat_v2, wechat_v3};
use crate::config::address::{self, Path};
use crate::config::check::Check;
use crate::config::secret_ref::SecretRef;
use crate::config::units::Span;
use crate::config::{raw, redacted};
use crate::http::base_url::BaseUrl;
use payout_domain::encoding::Encoding;
use payout_domain::ids::HandlerId;
use payout_domain::merchant::MerchantKind;
use payout_domain::secret::Secret;

/// An example of a handler's URL, for messages.
const HANDLER_URL: &str = "http://127.0.0.1:8000";

/// Keys of `to = "handler"` only.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Keys {
    /// Handler: scheme, host, port and optionally a path. Requests append the contract's path.
    handler_url: Option<String>,
    /// Handler: its name in the orders that the sidecar sends to it. The sidecar asks no other handler about
    /// them. Default: scheme, host, port and path of `handler_url`.
    handler_id: Option<String>,
    /// Handler: earlier `handler_id`s or URLs of the same handler. The sidecar asks this handler about their
    /// orders.
    formerly: Vec<String>,
    /// Handler: the encoding of requests to it.
    handler_format: HandlerFormat,
    /// Handler: whether it pays an order number only once by itself. Then the sidecar may send an order again.
    idempotent: bool,
    /// Handler: how long a response may take. Then the outcome is unknown, and the sidecar queries it.
    #[default(Span::seconds(10))]
    timeout: Span,
    /// Handler: how long it must answer nothing but `NOT_FOUND` before an order counts as not paid. Default:
    /// twice `timeout`, or 24h for an idempotent handler.
    not_found_after: Option<Span>,
    /// Handler: whether it gets the credentials that a request carries.
    forward_credentials: bool,
    /// Handler: the token that the sidecar sends with each call in `X-Handler-Token`. The sidecar removes this
    /// header from every proxied request, so the handler can tell the sidecar's calls from others. Visible
    /// ASCII.
    handler_token: Option<SecretRef>,
}

/// The encoding of requests to a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HandlerFormat {
    /// Always JSON.
    Json,
    /// Always XML.
    Xml,
    /// The encoding of the platform's request.
    #[default]
    Same,
}

/// A customer's handler.
#[derive(Clone, Debug, Serialize)]
pub struct Handler {
    /// Requests append the contract's path to it.
    #[serde(rename = "handler_url")]
    pub url: BaseUrl,
    /// The handler's id in the orders that were sent to it.
    #[serde(rename = "handler_id", serialize_with = "redacted::text")]
    pub id: HandlerId,
    /// Earlier ids of the same handler. The sidecar settles their orders here.
    #[serde(serialize_with = "redacted::texts")]
    pub formerly: Vec<HandlerId>,
    /// The encoding of the requests to it.
    #[serde(rename = "handler_format")]
    pub format: HandlerFormat,
    /// Whether the handler itself pays an order number only once.
    pub idempotent: bool,
    /// How long a response may take. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub timeout: Duration,
    /// How long the handler must answer nothing but `NOT_FOUND` before the order is refused. At least
    /// `timeout`.
    #[serde(serialize_with = "redacted::span")]
    pub not_found_after: Duration,
    /// Whether the handler gets the credentials of the request.
    pub forward_credentials: bool,
    /// The token that the sidecar sends with each call, so that the handler can tell it from a proxied request.
    /// Visible ASCII.
    #[serde(rename = "handler_token")]
    pub token: Option<Secret>,
}

impl Handler {
    /// How its orders are composed and known again.
    #[must_use]
    pub fn kind(&self) -> MerchantKind {
        MerchantKind::Handler {
            format: self.format.fixed(),
            id: self.id.clone(),
            formerly: self.formerly.clone(),
        }
    }
}

impl HandlerFormat {
    /// The encoding of every request; `None`: that of the platform's request.
    #[must_use]
    pub fn fixed(self) -> Option<Encoding> {
        match self {
            Self::Json => Some(Encoding::Json),
            Self::Xml => Some(Encoding::Xml),
            Self::Same => None,
        }
    }
}

impl Entry<'_> {
    pub(super) fn handler(&self, check: &mut Check<'_>) -> Option<Handler> {
        let raw = &self.raw.handler;
        let here = "to = \"handler\"";
        self.refuse(&key_names::<WechatKeys>(), here, check);
        self.refuse(&key_names::<wechat_v2::Keys>(), here, check);
        self.refuse(&key_names::<wechat_v3::Keys>(), here, check);
        let url_path = self.at("handler_url");
        let url = match &raw.handler_url {
            Some(url) => check.url(url, &url_path, Path::Allowed, HANDLER_URL),
            None => {
                check.error(
                    &url_path,
                    format!("is missing: write e.g. handler_url = \"{HANDLER_URL}\""),
                );
                None
            }
        };
        let id = match (&raw.handler_id, &url) {
            (Some(id), _) => self.handler_id(id, "handler_id", check),
            (None, Some(url)) => self.handler_id(&url.to_string(), "handler_url", check),
            (None, None) => None,
        };
        let formerly = raw
            .formerly
            .iter()
            .enumerate()
            .filter_map(|(index, former)| self.handler_id(former, &format!("formerly[{index}]"), check))
            .collect();
        let timeout = check.timeout(raw.timeout, &self.at("timeout"));
        // An idempotent handler refuses a second payment, like WeChat, so `NOT_FOUND` must last as long as
        // WeChat's.
        let default = if raw.idempotent {
            raw::Wechat::default().not_found_after.0
        } else {
            timeout.saturating_mul(2)
        };
        let not_found_after = raw.not_found_after.map_or(default, |span| span.0);
        if not_found_after < timeout {
            let text = "must be at least timeout: before, the request itself may still be on its way";
            check.error(&self.at("not_found_after"), text);
        }
        let token = self.handler_token(check);
        Some(Handler {
            url: url?,
            id: id?,
            formerly,
            format: raw.handler_format,
            idempotent: raw.idempotent,
            timeout,
            not_found_after,
            forward_credentials: raw.forward_credentials,
            token,
        })
    }

    fn handler_token(&self, check: &mut Check<'_>) -> Option<Secret> {
        let path = self.at("handler_token");
        let token = check.secret(self.raw.handler.handler_token.as_ref(), &path)?;
        if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = "holds a blank, a line break or another character that no header may have: write letters, digits and \
                        signs of ASCII, e.g. what `openssl rand -hex 32` prints";
            check.error(&path, text);
        }
        Some(token)
    }

    fn handler_id(&self, text: &str, key: &str, check: &mut Check<'_>) -> Option<HandlerId> {
        check.take(&self.at(key), address::handler_id(text, HANDLER_URL))
    }
}
