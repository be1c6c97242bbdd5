//! The entries with `to = "wechat"` and a product of v2: their keys in the file, the checks, and what the program gets.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, ProductKey, handler, key_names, wechat_v3};
use crate::config::certificate::Certificate;
use crate::config::check::Check;
use crate::config::secret_ref::SecretRef;
use crate::config::{Wechat, redacted};
use payout_domain::merchant::MerchantKind;
use payout_domain::route::MerchantPattern;
use payout_domain::secret::Secret;
use payout_domain::wechat::Product;
use payout_domain::wechat::v2::Texts;
use payout_domain::xml::is_xml_char;

/// Keys of red packets only.
const RED_PACKET_KEYS: [&str; 3] = ["send_name", "wishing", "scene_id"];

/// Length of an APIv2 key, in characters. See docs/wechat-pay.md ("signatures").
const API_KEY_LENGTH: usize = 32;

/// The most characters of `send_name`, `wishing` and `scene_id` that WeChat Pay accepts.
const SEND_NAME_LENGTH: usize = 32;
const WISHING_LENGTH: usize = 128;
const SCENE_ID_LENGTH: usize = 32;

/// Keys of v2 products only.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Keys {
    /// Red packets: the sender that the user sees, at most 32 characters.
    send_name: Option<String>,
    /// Red packets: the wish that the user sees, at most 128 characters.
    wishing: Option<String>,
    /// Red packets: WeChat's scene, e.g. `PRODUCT_2`. WeChat requires it below 1 and above 200 yuan.
    scene_id: Option<String>,
    /// WeChat v2: the APIv2 key, 32 characters (not the APIv3 key).
    api_key: Option<SecretRef>,
    /// WeChat: whether the sidecar uses the credentials that a request carries.
    request_credentials: bool,
}

/// A merchant at WeChat Pay.
#[derive(Clone, Debug, Serialize)]
pub struct WechatMerchant {
    /// The product that pays.
    pub product: Product,
    /// The sender that the red packet shows, 1 to 32 characters. Empty only for [`Product::Transfer`].
    pub send_name: String,
    /// The wish that the red packet shows, 1 to 128 characters. Empty only for [`Product::Transfer`].
    pub wishing: String,
    /// WeChat's scene.
    pub scene_id: Option<String>,
    /// The APIv2 key, 32 characters. `None` only with `request_credentials`.
    pub api_key: Option<Secret>,
    /// The merchant's certificate and key. `None` only with `request_credentials`, or if `base_url` is plain
    /// `http`.
    #[serde(serialize_with = "redacted::certificate")]
    pub certificate: Option<Arc<Certificate>>,
    /// Whether the sidecar uses the credentials that a request carries.
    pub request_credentials: bool,
}

impl WechatMerchant {
    /// How its orders are composed and known again.
    #[must_use]
    pub fn kind(&self) -> MerchantKind {
        MerchantKind::Wechat {
            product: self.product,
            texts: Texts {
                send_name: self.send_name.clone(),
                wishing: self.wishing.clone(),
                scene_id: self.scene_id.clone(),
            },
        }
    }
}

impl Entry<'_> {
    pub(super) fn wechat_v2(
        &self,
        pattern: &MerchantPattern,
        wechat: Option<&Wechat>,
        check: &mut Check<'_>,
    ) -> Option<WechatMerchant> {
        let raw = &self.raw.v2;
        self.refuse(&key_names::<handler::Keys>(), "to = \"wechat\"", check);
        let product = self.product(check)?;
        self.refuse(
            &key_names::<wechat_v3::Keys>(),
            "a product other than \"transfer-bill\"",
            check,
        );
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
        let common = &self.raw.wechat;
        let has_own = [&raw.api_key, &common.cert, &common.key, &common.p12]
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
        match self.raw.wechat.product {
            Some(ProductKey::Redpack) => Some(Product::Redpack),
            Some(ProductKey::MiniProgramRedpack) => Some(Product::MiniProgramRedpack),
            Some(ProductKey::Transfer) => Some(Product::Transfer),
            // `wechat_v3` checks it.
            Some(ProductKey::TransferBill) => None,
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
        if self.raw.v2.api_key.is_none() && !self.raw.v2.request_credentials {
            check.error(
                &path,
                "is missing: give the merchant's API key, or set request_credentials = true",
            );
        }
        let key = check.secret(self.raw.v2.api_key.as_ref(), &path)?;
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
        let raw = &self.raw.wechat;
        let missing = match (&raw.cert, &raw.key) {
            (None, None) if raw.p12.is_none() => {
                let needs_none =
                    self.raw.v2.request_credentials || wechat.is_none_or(|wechat| !wechat.base_url.is_tls());
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
}
