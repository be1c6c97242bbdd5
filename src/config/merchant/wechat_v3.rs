//! The entries with `product = "transfer-bill"`, WeChat Pay v3: their keys in the file, the checks, and what the
//! program gets.
//!
//! The rules come from WeChat Pay's interface, see docs/wechat-pay.md ("Bill fields", "Keys and certificates",
//! "Notifications").

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, handler, key_names, wechat_v2};
use crate::config::certificate::Certificate;
use crate::config::check::Check;
use crate::config::secret_ref::SecretRef;
use crate::config::{address, redacted};
use payout_domain::handler::{SEND_PATH, STATUS_PATH};
use payout_domain::ids::MchId;
use payout_domain::merchant::MerchantKind;
use payout_domain::route::MerchantPattern;
use payout_domain::wechat::v3::envelope::Apiv3Key;
use payout_domain::wechat::v3::request::{INFO_CONTENT, INFO_TYPE, Scene, is_basic};
use payout_domain::wechat::v3::sign::{SigningKey, VerifyingKey};

/// The most characters of `transfer_scene_id` and of `notify_url` that WeChat Pay v3 accepts.
const SCENE_ID: usize = 36;
const NOTIFY_URL: usize = 256;

/// Keys of `product = "transfer-bill"` only.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(in crate::config) struct Keys {
    /// v3: serial number of the merchant's certificate. Not needed with `cert` or `p12`.
    serial_no: Option<String>,
    /// v3: the APIv3 key, 32 characters. It decrypts notifications and platform certificates.
    apiv3_key: Option<SecretRef>,
    /// v3: id of WeChat Pay's public key. Without it the sidecar downloads platform certificates.
    public_key_id: Option<String>,
    /// v3: WeChat Pay's public key (PEM).
    public_key: Option<SecretRef>,
    /// v3: id of the transfer scene.
    transfer_scene_id: Option<String>,
    /// v3: what the user sees as the reason for the payment.
    user_recv_perception: Option<String>,
    /// v3: the report that the scene requires. The sidecar fills in `{actName}` and `{remark}`.
    scene_report_infos: Vec<SceneReportInfo>,
    /// v3: the URL to which WeChat sends notifications. The main port serves its path.
    notify_url: Option<String>,
}

/// One line of a scene's report.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct SceneReportInfo {
    /// The kind of information, in WeChat's words, e.g. `活动名称`.
    info_type: String,
    /// The text. The sidecar fills in `{actName}` and `{remark}`.
    info_content: String,
}

/// A merchant at WeChat Pay v3. The keys are parsed; `Debug` shows nothing of them.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "product", rename = "transfer-bill")]
pub struct BillMerchant {
    /// The merchant number, which signs v3 requests together with `key`.
    #[serde(skip)]
    pub mch_id: MchId,
    /// The private key that signs requests.
    #[serde(serialize_with = "redacted::key")]
    pub key: Arc<SigningKey>,
    /// Serial number of the merchant's certificate, in upper-case hexadecimal.
    pub serial_no: String,
    /// Decrypts notifications and platform certificates. `None` only with a public key and without
    /// notifications.
    #[serde(serialize_with = "redacted::key")]
    pub apiv3_key: Option<Arc<Apiv3Key>>,
    /// WeChat Pay's public key with its id. `None`: the sidecar downloads platform certificates.
    #[serde(flatten, serialize_with = "redacted::public_key")]
    pub public_key: Option<(String, Arc<VerifyingKey>)>,
    /// The texts of its bills that do not come from the request.
    #[serde(flatten, serialize_with = "redacted::scene")]
    pub scene: Scene,
    /// The path of `notify_url`, which the main port serves.
    #[serde(skip)]
    pub notify_path: Option<String>,
}

impl BillMerchant {
    /// How its orders are composed and known again.
    #[must_use]
    pub fn kind(&self) -> MerchantKind {
        MerchantKind::TransferBill {
            scene: self.scene.clone(),
        }
    }
}

impl Entry<'_> {
    pub(super) fn wechat_v3(&self, pattern: &MerchantPattern, check: &mut Check<'_>) -> Option<BillMerchant> {
        self.refuse(&key_names::<handler::Keys>(), "to = \"wechat\"", check);
        self.refuse(
            &key_names::<wechat_v2::Keys>(),
            "product = \"transfer-bill\"",
            check,
        );
        if pattern.mch_id.is_none() {
            let text = "must name one merchant: v3 signs with its number and key";
            check.error(&self.at("mch_id"), text);
        }
        let identity = self.signer(pattern, check);
        let public_key = self.public_key(check);
        let notify_path = self.notify_path(check);
        let apiv3_key = self.apiv3_key(check);
        let scene = self.scene(check);
        let (key, serial_no) = identity?;
        Some(BillMerchant {
            mch_id: pattern.mch_id.clone()?,
            key,
            serial_no,
            apiv3_key,
            public_key,
            scene,
            notify_path,
        })
    }

    /// Returns the signing key and the serial number of the merchant's certificate.
    fn signer(&self, pattern: &MerchantPattern, check: &mut Check<'_>) -> Option<(Arc<SigningKey>, String)> {
        let raw = &self.raw.wechat;
        if raw.key.is_none() && raw.p12.is_none() {
            let text = "is missing: give the private key of the merchant's certificate";
            check.error(&self.at("key"), text);
            return None;
        }
        let certificate = self.given_certificate(pattern, check);
        let key = match &certificate {
            Some(certificate) => SigningKey::from_der(certificate.key()),
            // `given_certificate` has reported the mistake.
            None if raw.cert.is_some() || raw.p12.is_some() => return None,
            None => SigningKey::from_pem(check.secret(raw.key.as_ref(), &self.at("key"))?.expose()),
        };
        let blamed = if raw.p12.is_some() { "p12" } else { "key" };
        let key = check.take(&self.at(blamed), key.map_err(|error| error.to_string()));
        let serial_no = self.serial_no(certificate.as_deref(), check);
        Some((Arc::new(key?), serial_no?))
    }

    fn serial_no(&self, certificate: Option<&Certificate>, check: &mut Check<'_>) -> Option<String> {
        let path = self.at("serial_no");
        let given = self.raw.v3.serial_no.as_deref().map(str::to_ascii_uppercase);
        match (given, certificate.map(Certificate::serial)) {
            (None, None) => {
                let text = "is missing: give the serial number of the merchant's certificate, or cert";
                check.error(&path, text);
                None
            }
            (None, Some(serial)) => Some(serial.to_owned()),
            (Some(given), Some(serial)) if given != serial => {
                check.error(
                    &path,
                    format!("is not that of cert, which is {serial}: remove it, or give the right cert"),
                );
                None
            }
            (Some(given), _) => {
                let is_hex = given.bytes().all(|b| b.is_ascii_hexdigit());
                if !is_hex || !(1..=64).contains(&given.len()) {
                    check.error(
                        &path,
                        "must be hexadecimal digits, as the merchant platform shows it",
                    );
                }
                Some(given)
            }
        }
    }

    fn apiv3_key(&self, check: &mut Check<'_>) -> Option<Arc<Apiv3Key>> {
        let raw = &self.raw.v3;
        let path = self.at("apiv3_key");
        if raw.apiv3_key.is_none() {
            let why = match (&raw.notify_url, &raw.public_key) {
                (Some(_), _) => "notifications cannot be opened without it",
                (None, None) => "platform certificates cannot be opened without it",
                (None, Some(_)) => return None,
            };
            check.error(&path, format!("is missing: {why}"));
        }
        let text = check.secret(raw.apiv3_key.as_ref(), &path)?;
        let key = Apiv3Key::new(text.expose()).map(Arc::new);
        if key.is_none() {
            let length = text.expose().len();
            check.error(
                &path,
                format!(
                    "must be exactly 32 bytes, and this is {length}: take the APIv3 key of the merchant platform"
                ),
            );
        }
        key
    }

    fn public_key(&self, check: &mut Check<'_>) -> Option<(String, Arc<VerifyingKey>)> {
        let raw = &self.raw.v3;
        let (id, pem) = match (&raw.public_key_id, &raw.public_key) {
            (None, None) => return None,
            (Some(id), Some(pem)) => (id, pem),
            (Some(_), None) => {
                check.error(
                    &self.at("public_key"),
                    "is missing beside public_key_id: give both, or none to download platform certificates",
                );
                return None;
            }
            (None, Some(_)) => {
                check.error(
                    &self.at("public_key_id"),
                    "is missing beside public_key: give both",
                );
                return None;
            }
        };
        let is_id = id
            .strip_prefix("PUB_KEY_ID_")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
        if !is_id {
            check.error(
                &self.at("public_key_id"),
                "must be PUB_KEY_ID_ and digits, as the merchant platform shows it",
            );
        }
        let path = self.at("public_key");
        let pem = check.secret(Some(pem), &path)?;
        let key = VerifyingKey::from_pem(pem.expose()).map_err(|error| error.to_string());
        Some((id.clone(), Arc::new(check.take(&path, key)?)))
    }

    fn scene(&self, check: &mut Check<'_>) -> Scene {
        let raw = &self.raw.v3;
        let id = raw.transfer_scene_id.clone().unwrap_or_default();
        self.text(&id, "transfer_scene_id", SCENE_ID, check);
        if let Some(perception) = &raw.user_recv_perception {
            self.text(perception, "user_recv_perception", INFO_CONTENT, check);
        }
        if raw.scene_report_infos.is_empty() {
            let text = "is missing: write what the scene asks to be reported, e.g. [{ info_type = \"活动名称\", \
                        info_content = \"{actName}\" }, { info_type = \"奖励说明\", info_content = \"{remark}\" }]";
            check.error(&self.at("scene_report_infos"), text);
        }
        for (index, report) in raw.scene_report_infos.iter().enumerate() {
            let at = |key: &str| format!("scene_report_infos[{index}].{key}");
            self.text(&report.info_type, &at("info_type"), INFO_TYPE, check);
            // For each bill the domain cuts the filled-in text to `INFO_CONTENT`; here the template itself must
            // fit.
            let fixed = report
                .info_content
                .replace("{actName}", "")
                .replace("{remark}", "");
            if fixed.contains(['{', '}']) {
                check.error(
                    &self.at(&at("info_content")),
                    "has braces that are neither {actName} nor {remark}: mend the name",
                );
            }
            self.text(&report.info_content, &at("info_content"), INFO_CONTENT, check);
        }
        Scene {
            id,
            perception: raw.user_recv_perception.clone(),
            reports: raw
                .scene_report_infos
                .iter()
                .map(|report| (report.info_type.clone(), report.info_content.clone()))
                .collect(),
            notify_url: raw.notify_url.clone(),
        }
    }

    /// Checks a text against v3's rules: 1 to `longest` characters, no control characters, no emoji.
    fn text(&self, text: &str, key: &str, longest: usize, check: &mut Check<'_>) {
        let path = self.at(key);
        let length = text.chars().count();
        if length == 0 {
            check.error(
                &path,
                format!("is missing: v3 asks for it (1 to {longest} characters)"),
            );
        } else if length > longest {
            check.error(
                &path,
                format!("has {length} characters: shorten it to {longest} at most"),
            );
        } else if text.chars().any(|c| c.is_control() || !is_basic(c)) {
            check.error(
                &path,
                "has an emoji or a control character, which v3 does not take: remove it",
            );
        }
    }

    /// Checks `notify_url` and returns its path, which the main port serves.
    fn notify_path(&self, check: &mut Check<'_>) -> Option<String> {
        let url = self.raw.v3.notify_url.as_deref()?;
        let path = self.at("notify_url");
        let example = "https://pay.example.com/notify/transfer";
        let parsed = check.url(url, &path, address::Path::Allowed, example)?;
        if !parsed.is_tls() && !parsed.is_loopback() {
            check.error(&path, "must be https: WeChat Pay takes no other");
        }
        if url.len() > NOTIFY_URL {
            check.error(&path, format!("must have at most {NOTIFY_URL} characters"));
        }
        let own = parsed.uri().path().to_owned();
        if own.is_empty() || own == "/" || [SEND_PATH, STATUS_PATH].contains(&own.as_str()) {
            check.error(
                &path,
                format!(
                    "must have a path of its own, which is served on the main port: write e.g. {example}"
                ),
            );
        }
        Some(own)
    }
}
