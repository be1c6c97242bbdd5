//! Checks the `[[merchant]]` entries: which orders go where, and whether the credentials for it are present and
//! valid.
//!
//! A key that belongs to another kind of entry is a mistake here, not ignored: the operator expects the entry
//! to pay in a way that it does not. `bill` checks v3 transfers.

use std::sync::Arc;

use payout_domain::ids::{HandlerId, Malformed, MchId, WxAppId};
use payout_domain::route::MerchantPattern;
use payout_domain::secret::Secret;
use payout_domain::wechat::Product;
use payout_domain::xml::is_xml_char;

use super::address::{self, Path};
use super::certificate::{Certificate, CertificateError};
use super::check::Check;
use super::raw;
use super::secret_ref::SecretRef;
use super::{Handler, Merchant, To, Wechat, WechatMerchant};

/// Keys of `to = "handler"`.
pub(super) const HANDLER_KEYS: [&str; 9] = [
    "handler_url",
    "handler_id",
    "formerly",
    "handler_format",
    "idempotent",
    "timeout",
    "not_found_after",
    "forward_credentials",
    "handler_token",
];

/// Keys of `to = "wechat"` that all products share.
const WECHAT_KEYS: [&str; 4] = ["product", "cert", "key", "p12"];

/// Keys of v2 products only.
pub(super) const V2_KEYS: [&str; 5] = [
    "send_name",
    "wishing",
    "scene_id",
    "api_key",
    "request_credentials",
];

/// Keys of `product = "transfer-bill"` only.
const V3_KEYS: [&str; 8] = [
    "serial_no",
    "apiv3_key",
    "public_key_id",
    "public_key",
    "transfer_scene_id",
    "user_recv_perception",
    "scene_report_infos",
    "notify_url",
];

/// Keys of red packets only.
const RED_PACKET_KEYS: [&str; 3] = ["send_name", "wishing", "scene_id"];

/// Length of an APIv2 key, in characters. See docs/wechat-pay.md ("signatures").
const API_KEY_LENGTH: usize = 32;

/// The most characters of `send_name`, `wishing` and `scene_id` that WeChat Pay accepts.
const SEND_NAME_LENGTH: usize = 32;
const WISHING_LENGTH: usize = 128;
const SCENE_ID_LENGTH: usize = 32;

/// An example of a handler's URL, for messages.
const HANDLER_URL: &str = "http://127.0.0.1:8000";

/// Checks all entries, and that no two entries take the same new orders.
pub(super) fn merchants(
    raw: &[raw::Merchant],
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
            Some(raw::To::Handler) => entry.handler(check).map(To::Handler),
            Some(raw::To::Wechat) if raw.product == Some(raw::Product::TransferBill) => {
                entry.bill(&pattern, check).map(To::TransferBill)
            }
            Some(raw::To::Wechat) => entry.wechat(&pattern, wechat, check).map(To::Wechat),
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

fn pattern(raw: &raw::Merchant, path: &str, check: &mut Check<'_>) -> Option<MerchantPattern> {
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
pub(super) struct Entry<'a> {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) raw: &'a raw::Merchant,
}

impl Entry<'_> {
    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// Records a mistake for each of `keys` that the entry has: they belong to another kind of entry.
    pub(super) fn refuse(&self, keys: &[&str], here: &str, check: &mut Check<'_>) {
        for key in keys {
            let path = self.at(key);
            if check.problems.origins.is_given(&path) {
                check.error(&path, format!("has no meaning with {here}: remove it"));
            }
        }
    }

    fn handler(&self, check: &mut Check<'_>) -> Option<Handler> {
        let raw = self.raw;
        let others = [&WECHAT_KEYS[..], &V2_KEYS, &V3_KEYS].concat();
        self.refuse(&others, "to = \"handler\"", check);
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
        Some(Handler {
            url: url?,
            id: id?,
            formerly,
            format: raw.handler_format,
            idempotent: raw.idempotent,
            timeout,
            not_found_after,
            forward_credentials: raw.forward_credentials,
            token: self.handler_token(check),
        })
    }

    fn handler_token(&self, check: &mut Check<'_>) -> Option<Secret> {
        let path = self.at("handler_token");
        let token = check.secret(self.raw.handler_token.as_ref(), &path)?;
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

    fn wechat(
        &self,
        pattern: &MerchantPattern,
        wechat: Option<&Wechat>,
        check: &mut Check<'_>,
    ) -> Option<WechatMerchant> {
        let raw = self.raw;
        self.refuse(&HANDLER_KEYS, "to = \"wechat\"", check);
        let product = self.product(check)?;
        self.refuse(&V3_KEYS, "a product other than \"transfer-bill\"", check);
        let (send_name, wishing, scene_id) = match product {
            Product::Redpack | Product::MiniProgramRedpack => (
                self.shown_text(raw.send_name.as_deref(), "send_name", SEND_NAME_LENGTH, check),
                self.shown_text(raw.wishing.as_deref(), "wishing", WISHING_LENGTH, check),
                raw.scene_id
                    .as_deref()
                    .map(|scene| self.plain_text(scene, "scene_id", SCENE_ID_LENGTH, check)),
            ),
            Product::Transfer => {
                check.idle(&self.path, &RED_PACKET_KEYS, "product = \"transfer\"");
                (String::new(), String::new(), None)
            }
        };
        let has_own = [&raw.api_key, &raw.cert, &raw.key, &raw.p12]
            .iter()
            .any(|secret| secret.is_some());
        if pattern.mch_id.is_none() && (has_own || !raw.request_credentials) {
            let text = "must name one merchant: credentials belong to one (\"*\" goes with request_credentials = true only)";
            check.error(&self.at("mch_id"), text);
        }
        let api_key = self.api_key(check);
        let certificate = self.certificate(pattern, wechat, check);
        Some(WechatMerchant {
            product,
            send_name,
            wishing,
            scene_id,
            api_key,
            certificate,
            request_credentials: raw.request_credentials,
        })
    }

    fn product(&self, check: &mut Check<'_>) -> Option<Product> {
        match self.raw.product {
            Some(raw::Product::Redpack) => Some(Product::Redpack),
            Some(raw::Product::MiniProgramRedpack) => Some(Product::MiniProgramRedpack),
            Some(raw::Product::Transfer) => Some(Product::Transfer),
            // `bill` checks it.
            Some(raw::Product::TransferBill) => None,
            None => {
                let text = "is missing: write product = \"redpack\", \"mini-program-redpack\", \"transfer\" or \
                            \"transfer-bill\"";
                check.error(&self.at("product"), text);
                None
            }
        }
    }

    /// Checks a text that each red packet shows.
    fn shown_text(&self, text: Option<&str>, key: &str, longest: usize, check: &mut Check<'_>) -> String {
        if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
            return self.plain_text(text, key, longest, check);
        }
        check.error(
            &self.at(key),
            format!("is missing: red packets show it (1 to {longest} characters)"),
        );
        String::new()
    }

    /// Checks a text that goes to WeChat unchanged. It must not be blank (WeChat treats an empty field as
    /// absent), must fit on one line, and must hold no character that XML cannot carry: such a character would
    /// otherwise fail the first payout.
    fn plain_text(&self, text: &str, key: &str, longest: usize, check: &mut Check<'_>) -> String {
        let path = self.at(key);
        let length = text.chars().count();
        if text.trim().is_empty() {
            check.error(
                &path,
                format!("is blank: write 1 to {longest} characters, or leave the key out"),
            );
        }
        if length > longest {
            check.error(
                &path,
                format!("has {length} characters: shorten it to {longest} at most"),
            );
        }
        if let Some(bad) = text.chars().find(|&c| c.is_control() || !is_xml_char(c)) {
            let code = u32::from(bad);
            check.error(
                &path,
                format!(
                    "holds the character U+{code:04X} (a line break?), which WeChat cannot be sent: remove it"
                ),
            );
        }
        text.to_owned()
    }

    fn api_key(&self, check: &mut Check<'_>) -> Option<Secret> {
        let path = self.at("api_key");
        if self.raw.api_key.is_none() && !self.raw.request_credentials {
            check.error(
                &path,
                "is missing: give the merchant's API key, or set request_credentials = true",
            );
        }
        let key = check.secret(self.raw.api_key.as_ref(), &path)?;
        let length = key.expose().chars().count();
        if length != API_KEY_LENGTH || !key.expose().bytes().all(|b| b.is_ascii_graphic()) {
            let text =
                format!("must be {API_KEY_LENGTH} letters and digits, and this is {length} characters");
            check.error(
                &path,
                format!("{text}: take the APIv2 key of the merchant platform, not the APIv3 key"),
            );
        }
        Some(key)
    }

    /// Returns the certificate. It may be absent with `request_credentials`: then each request brings its own.
    fn certificate(
        &self,
        pattern: &MerchantPattern,
        wechat: Option<&Wechat>,
        check: &mut Check<'_>,
    ) -> Option<Arc<Certificate>> {
        let raw = self.raw;
        let missing = match (&raw.cert, &raw.key) {
            (None, None) if raw.p12.is_none() => {
                let needs_none =
                    raw.request_credentials || wechat.is_none_or(|wechat| !wechat.base_url.is_tls());
                let text = "is missing: give cert and key, or p12, or set request_credentials = true";
                (!needs_none).then_some(("cert", text))
            }
            (Some(_), None) => Some(("key", "is missing beside cert: give both")),
            (None, Some(_)) => Some(("cert", "is missing beside key: give both")),
            (None, None) | (Some(_), Some(_)) => None,
        };
        if let (Some((key, text)), None) = (missing, &raw.p12) {
            check.error(&self.at(key), text);
        }
        self.given_certificate(pattern, check)
    }

    /// Returns the certificate of `p12`, or of `cert` and `key` if the entry has both.
    pub(super) fn given_certificate(
        &self,
        pattern: &MerchantPattern,
        check: &mut Check<'_>,
    ) -> Option<Arc<Certificate>> {
        match (&self.raw.cert, &self.raw.key, &self.raw.p12) {
            (None, None, Some(p12)) => self.certificate_of_p12(p12, pattern, check),
            (_, _, Some(_)) => {
                let text = "stands instead of cert and key: remove it, or them";
                check.error(&self.at("p12"), text);
                None
            }
            (Some(cert), Some(key), None) => {
                let cert = check.secret(Some(cert), &self.at("cert"));
                let key = check.secret(Some(key), &self.at("key"));
                let read = Certificate::from_pem(cert?.expose(), key?.expose(), check.now);
                let blamed = match read {
                    Err(CertificateError::NoKey | CertificateError::UnusableKey) => "key",
                    Ok(_) | Err(_) => "cert",
                };
                check.certificate(read, &self.at(blamed), &self.name)
            }
            (_, _, None) => None,
        }
    }

    fn certificate_of_p12(
        &self,
        p12: &SecretRef,
        pattern: &MerchantPattern,
        check: &mut Check<'_>,
    ) -> Option<Arc<Certificate>> {
        let path = self.at("p12");
        let file = match p12 {
            SecretRef::File(file) => file,
            SecretRef::Text(_) | SecretRef::Env(_) => {
                check.error(&path, "is not text but a binary file: write { file = \"path\" }");
                return None;
            }
        };
        // The password is the merchant number. The check of `mch_id` reports a missing one.
        let mch_id = pattern.mch_id.as_ref()?;
        let bytes = check.bytes(file, &path)?;
        let read = Certificate::from_p12(&bytes, mch_id.as_str(), check.now);
        check.certificate(read, &path, &self.name)
    }
}
