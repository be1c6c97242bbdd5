//! The `[[merchant]]` entries: which orders go where. Each kind of entry has a file of its own, with its keys, checks
//! and result: [`handler`], [`wechat_v2`], [`wechat_v3`]; both of WeChat's share `credentials`.
//!
//! A key that belongs to another kind of entry is a mistake, not ignored: the operator expects the entry to pay in a
//! way that it does not.

mod credentials;

mod handler;

mod wechat_v2;

mod wechat_v3;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use super::check::Check;
use super::secret_ref::SecretRef;
use super::{Wechat, redacted};
use payout_domain::ids::{Malformed, MchId, WxAppId};
use payout_domain::merchant::MerchantKind;
use payout_domain::order::step::Policy;
use payout_domain::route::MerchantPattern;

pub use self::handler::{Handler, HandlerFormat};
pub use self::wechat_v2::WechatMerchant;
pub use self::wechat_v3::BillMerchant;

/// An upstream, and the orders that go there.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(in crate::config) struct Keys {
    /// Merchant number. `*` or absent: any.
    #[default = "*"]
    mch_id: String,
    /// App id. `*` or absent: any.
    #[default = "*"]
    wx_app_id: String,
    /// `wechat`, or `handler`: your own service.
    to: Option<ToKey>,
    /// Keeps this entry to settle its old orders only, beside a new entry for the same merchant. It takes no
    /// new orders.
    settle_only: bool,

    #[serde(flatten)]
    handler: handler::Keys,
    #[serde(flatten)]
    wechat: WechatKeys,
    #[serde(flatten)]
    v2: wechat_v2::Keys,
    #[serde(flatten)]
    v3: wechat_v3::Keys,
}

/// Keys of `to = "wechat"`, whatever the product.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct WechatKeys {
    /// WeChat: the product that pays.
    product: Option<ProductKey>,
    /// WeChat: the merchant's certificate (PEM).
    cert: Option<SecretRef>,
    /// WeChat: the certificate's private key (PEM).
    key: Option<SecretRef>,
    /// WeChat: `{ file = "…/apiclient_cert.p12" }` instead of `cert` and `key`. Its password is the merchant
    /// number.
    p12: Option<SecretRef>,
}

/// A kind of upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ToKey {
    /// Your own service.
    Handler,
    /// WeChat Pay.
    Wechat,
}

/// A product of WeChat Pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum ProductKey {
    /// Cash red packet, v2.
    Redpack,
    /// Mini-program red packet, v2.
    MiniProgramRedpack,
    /// Payment to balance, v2.
    Transfer,
    /// Merchant transfer, v3.
    TransferBill,
}

/// One entry of `[[merchant]]`.
#[derive(Clone, Debug, Serialize)]
pub struct Merchant {
    /// The entry's name in messages, e.g. `merchant[0] 1900000109`.
    #[serde(skip)]
    pub name: String,
    /// Which orders it takes.
    #[serde(flatten, serialize_with = "redacted::pattern")]
    pub pattern: MerchantPattern,
    /// Where its orders go.
    #[serde(flatten)]
    pub to: To,
    /// Whether the entry only settles its old orders. If true, it takes no new order.
    pub settle_only: bool,
}

/// Where a merchant's orders go.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "to", rename_all = "lowercase")]
pub enum To {
    /// To the customer's own service.
    Handler(Handler),
    /// To WeChat Pay v2.
    Wechat(WechatMerchant),
    /// To WeChat Pay v3, merchant transfer.
    #[serde(rename = "wechat")]
    TransferBill(BillMerchant),
}

impl To {
    /// How the entry's orders are composed and known again.
    #[must_use]
    pub fn kind(&self) -> MerchantKind {
        match self {
            Self::Handler(handler) => handler.kind(),
            Self::Wechat(merchant) => merchant.kind(),
            Self::TransferBill(merchant) => merchant.kind(),
        }
    }

    /// What the upstream promises about repeats.
    #[must_use]
    pub fn policy(&self, wechat: &Wechat) -> Policy {
        match self {
            Self::Handler(handler) => Policy {
                refuses_doubles: handler.idempotent,
                not_found_after: handler.not_found_after,
            },
            Self::Wechat(_) | Self::TransferBill(_) => Policy {
                refuses_doubles: true,
                not_found_after: wechat.not_found_after,
            },
        }
    }

    /// Whether the credentials of a request reach the upstream.
    #[must_use]
    pub fn takes_credentials(&self) -> bool {
        match self {
            Self::Handler(handler) => handler.forward_credentials,
            Self::Wechat(merchant) => merchant.request_credentials,
            Self::TransferBill(_) => false,
        }
    }
}

/// The names of a struct's keys, as its schema has them.
fn key_names<T: JsonSchema>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect()
}

/// Checks all entries, and that no two entries take the same new orders.
pub(in crate::config) fn merchants(
    raw: &[Keys],
    wechat: Option<&Wechat>,
    check: &mut Check<'_>,
) -> Vec<Merchant> {
    let mut merchants: Vec<Merchant> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let path = format!("merchant[{index}]");
        let Some(pattern) = pattern(raw, &path, check) else {
            continue;
        };
        let entry = Entry {
            name: format!("{path} {pattern}"),
            path,
            raw,
        };
        let same = merchants
            .iter()
            .find(|merchant| merchant.pattern == pattern && !merchant.settle_only);
        if let Some(same) = same.filter(|_| !raw.settle_only) {
            let text = format!(
                "is for the same orders as {}: keep one of them, add wx_app_id, or give the older one settle_only = true",
                same.name
            );
            check.error(&format!("{}.mch_id", entry.path), text);
        }
        let to = match raw.to {
            None => {
                check.error(
                    &entry.at("to"),
                    "is missing: write to = \"wechat\" or to = \"handler\"",
                );
                None
            }
            Some(ToKey::Handler) => entry.handler(check).map(To::Handler),
            Some(ToKey::Wechat) if raw.wechat.product == Some(ProductKey::TransferBill) => {
                entry.wechat_v3(&pattern, check).map(To::TransferBill)
            }
            Some(ToKey::Wechat) => entry.wechat_v2(&pattern, wechat, check).map(To::Wechat),
        };
        merchants.extend(to.map(|to| Merchant {
            name: entry.name,
            pattern,
            to,
            settle_only: raw.settle_only,
        }));
    }
    if raw.iter().all(|entry| entry.settle_only) {
        let text = if raw.is_empty() {
            "there is no [[merchant]], so every payout is answered NO_AUTH: add one"
        } else {
            "every [[merchant]] has settle_only = true, so every new payout is answered NO_AUTH: add one without it"
        };
        check.problems.warn("merchant", text);
    }
    merchants
}

fn pattern(raw: &Keys, path: &str, check: &mut Check<'_>) -> Option<MerchantPattern> {
    let mch_id = any_or(&raw.mch_id, MchId::parse, &format!("{path}.mch_id"), check);
    let wx_app_id = any_or(
        &raw.wx_app_id,
        WxAppId::parse,
        &format!("{path}.wx_app_id"),
        check,
    );
    Some(MerchantPattern {
        mch_id: mch_id?,
        wx_app_id: wx_app_id?,
    })
}

/// Returns `None` for a mistake, which it has recorded, and `Some(None)` for `*`.
fn any_or<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, Malformed>,
    path: &str,
    check: &mut Check<'_>,
) -> Option<Option<T>> {
    if text == "*" {
        return Some(None);
    }
    parse(text)
        .map(Some)
        .map_err(|rule| check.error(path, format!("{rule}, or \"*\" for any; not \"{text}\"")))
        .ok()
}

/// An entry that is being checked.
struct Entry<'a> {
    path: String,
    name: String,
    raw: &'a Keys,
}

impl Entry<'_> {
    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Records a mistake for each of `keys` that the entry has: they belong to another kind of entry.
    fn refuse(&self, keys: &[String], here: &str, check: &mut Check<'_>) {
        for key in keys {
            let path = self.at(key);
            if check.problems.origins.is_given(&path) {
                check.error(&path, format!("has no meaning with {here}: remove it"));
            }
        }
    }
}
