//! WeChat Pay's own keys, which verify its answers and notifications: a configured public key, or platform
//! certificates. The sidecar downloads certificates when it first needs them, refreshes them in the background, and
//! chooses one by its serial. See docs/wechat-pay.md (signatures).
//!
//! A merchant that is switching from one to the other has both: either may sign its notifications.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::http_client::Failure;
use super::v3_caller::Caller;
use payout_domain::ids::Millis;
use payout_domain::wechat::v3::CERTIFICATES_PATH;
use payout_domain::wechat::v3::envelope::{Apiv3Key, PlatformCertificate, certificates};
use payout_domain::wechat::v3::sign::{Signed, VerifyingKey, verify};

/// The age from which on downloaded certificates are refreshed. WeChat lists a new one at least a day before using
/// it.
const REFRESH_AFTER: Duration = Duration::from_secs(12 * 3600);
/// The shortest pause between two downloads, so that unknown serials cannot cause endless downloads.
const BETWEEN_DOWNLOADS: Duration = Duration::from_secs(5);
/// The prefix of public keys' ids.
const PUBLIC_KEY_ID: &str = "PUB_KEY_ID_";

/// WeChat Pay's keys for one merchant.
pub(super) struct PlatformKeys {
    caller: Caller,
    public: Option<(String, Arc<VerifyingKey>)>,
    apiv3_key: Option<Arc<Apiv3Key>>,
    downloaded: RwLock<Downloaded>,
    /// Allows one download at a time. Holds when the last one began.
    turn: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Downloaded {
    certificates: Vec<Arc<PlatformCertificate>>,
    at: Option<Instant>,
}

/// A key found by its serial.
pub(super) enum Found {
    Public(Arc<VerifyingKey>),
    Certificate(Arc<PlatformCertificate>),
}

impl Found {
    pub(super) fn key(&self) -> &VerifyingKey {
        match self {
            Self::Public(key) => key,
            Self::Certificate(certificate) => &certificate.key,
        }
    }
}

impl PlatformKeys {
    pub(super) fn new(
        caller: Caller,
        public: Option<(String, Arc<VerifyingKey>)>,
        apiv3_key: Option<Arc<Apiv3Key>>,
    ) -> Self {
        Self {
            caller,
            public,
            apiv3_key,
            downloaded: RwLock::default(),
            turn: Mutex::new(None),
        }
    }

    /// How many downloads one call may need: one before it, and one for an answer signed with a new serial.
    pub(super) fn downloads(&self) -> u32 {
        u32::from(self.public.is_none()).saturating_add(u32::from(self.apiv3_key.is_some()))
    }

    /// The serial to send as `Wechatpay-Serial`: it names the key that must sign the answer.
    ///
    /// # Errors
    /// When there is no key and none can be downloaded, then why: the sidecar could believe no answer.
    pub(super) async fn current(self: &Arc<Self>, now: Millis) -> Result<String, String> {
        if let Some((id, _)) = &self.public {
            return Ok(id.clone());
        }
        if let Some(serial) = self.newest(now) {
            self.refresh_if_old();
            return Ok(serial);
        }
        self.download(|keys| keys.newest(now)).await
    }

    /// The key with this serial. Downloads it if it is not known yet.
    ///
    /// # Errors
    /// When there is none, then why.
    pub(super) async fn of_serial(self: &Arc<Self>, serial: &str, now: Millis) -> Result<Found, String> {
        if let Some((id, key)) = &self.public
            && id == serial
        {
            return Ok(Found::Public(Arc::clone(key)));
        }
        if let Some(certificate) = self.certificate(serial, now) {
            self.refresh_if_old();
            return Ok(Found::Certificate(certificate));
        }
        let shown: String = serial.chars().take(64).collect();
        if self.apiv3_key.is_none() || serial.starts_with(PUBLIC_KEY_ID) {
            return Err(format!(
                "the key {shown} is not this merchant's: see public_key_id"
            ));
        }
        self.download(|keys| keys.certificate(serial, now).map(Found::Certificate))
            .await
            .map_err(|why| format!("the key {shown} is not known: {why}"))
    }

    fn newest(&self, now: Millis) -> Option<String> {
        let downloaded = self.downloaded.read().unwrap_or_else(PoisonError::into_inner);
        let in_force = downloaded.certificates.iter().filter(|c| is_in_force(c, now));
        in_force.max_by_key(|c| c.not_before).map(|c| c.serial.clone())
    }

    fn certificate(&self, serial: &str, now: Millis) -> Option<Arc<PlatformCertificate>> {
        let downloaded = self.downloaded.read().unwrap_or_else(PoisonError::into_inner);
        let found = downloaded
            .certificates
            .iter()
            .find(|c| c.serial.eq_ignore_ascii_case(serial) && is_in_force(c, now));
        found.map(Arc::clone)
    }

    fn refresh_if_old(self: &Arc<Self>) {
        let at = self.downloaded.read().unwrap_or_else(PoisonError::into_inner).at;
        if at.is_some_and(|at| at.elapsed() > REFRESH_AFTER) {
            let keys = Arc::clone(self);
            tokio::spawn(async move {
                // The old certificates stay good while they are in force.
                if let Err(why) = keys.download(|keys| keys.is_fresh().then_some(())).await {
                    tracing::warn!(why, "WeChat Pay's platform certificates could not be refreshed");
                }
            });
        }
    }

    fn is_fresh(&self) -> bool {
        let downloaded = self.downloaded.read().unwrap_or_else(PoisonError::into_inner);
        downloaded.at.is_some_and(|at| at.elapsed() <= REFRESH_AFTER)
    }

    /// Downloads, unless what is `wanted` is there once it is this caller's turn. Callers that wait share one
    /// download.
    async fn download<T>(&self, wanted: impl Fn(&Self) -> Option<T>) -> Result<T, String> {
        let mut last = self.turn.lock().await;
        if let Some(found) = wanted(self) {
            return Ok(found);
        }
        if last.is_some_and(|at| at.elapsed() < BETWEEN_DOWNLOADS) {
            return Err("the platform certificates were downloaded just now, without it".to_owned());
        }
        *last = Some(Instant::now());
        let fresh = self.fetch().await?;
        let serials: Vec<&str> = fresh.iter().map(|c| c.serial.as_str()).collect();
        tracing::info!(?serials, "WeChat Pay's platform certificates were downloaded");
        *self.downloaded.write().unwrap_or_else(PoisonError::into_inner) = Downloaded {
            certificates: fresh,
            at: Some(Instant::now()),
        };
        wanted(self).ok_or_else(|| "it is not among the platform certificates".to_owned())
    }

    /// Fetches the certificates. Only a party that knows the APIv3 key can have encrypted them. The list itself must
    /// be signed with one of them or with a key that is known already.
    async fn fetch(&self) -> Result<Vec<Arc<PlatformCertificate>>, String> {
        let apiv3_key = self.apiv3_key.as_ref().ok_or("there is no apiv3_key")?;
        let asked = self.caller.ask(&Method::GET, CERTIFICATES_PATH, None).await;
        let answer = asked.map_err(Failure::why)?;
        if answer.status != http::StatusCode::OK {
            return Err(format!(
                "WeChat Pay answered HTTP {} to the download of platform certificates: is this a merchant with a public \
                 key (public_key_id)?",
                answer.status
            ));
        }
        let listed = certificates(&answer.body, apiv3_key)
            .map_err(|error| format!("a platform certificate was not read: {error}"))?;
        let now = self.caller.now();
        let signed = signed(&answer.headers)?.ok_or("the platform certificates are not signed")?;
        let known = self.certificate(signed.serial, now);
        let own = listed
            .iter()
            .find(|c| c.serial.eq_ignore_ascii_case(signed.serial) && is_in_force(c, now));
        let public = self.public.as_ref().filter(|(id, _)| id == signed.serial);
        let key = known
            .as_ref()
            .map(|c| &c.key)
            .or_else(|| own.map(|c| &c.key))
            .or_else(|| public.map(|(_, key)| &**key));
        let key = key.ok_or("the platform certificates are signed by none of them")?;
        verify(signed, &answer.body, key, now)
            .map_err(|error| format!("the platform certificates: {error}"))?;
        Ok(listed.into_iter().map(Arc::new).collect())
    }
}

fn is_in_force(certificate: &PlatformCertificate, now: Millis) -> bool {
    certificate.not_before <= now && now <= certificate.not_after
}

/// The headers that sign an answer or a notification; `None` if there are none at all.
///
/// # Errors
/// When only some are there, or one is there twice or is not readable, then why.
pub(super) fn signed(headers: &HeaderMap) -> Result<Option<Signed<'_>>, String> {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value
                .to_str()
                .map(Some)
                .map_err(|_| format!("its {name} is not readable")),
            (Some(_), Some(_)) => Err(format!("its {name} is there twice")),
        }
    };
    match (
        one("wechatpay-timestamp")?,
        one("wechatpay-nonce")?,
        one("wechatpay-serial")?,
        one("wechatpay-signature")?,
    ) {
        (Some(timestamp), Some(nonce), Some(serial), Some(signature)) => Ok(Some(Signed {
            timestamp,
            nonce,
            serial,
            signature,
        })),
        (None, None, None, None) => Ok(None),
        _ => Err("some of the headers that sign it are missing".to_owned()),
    }
}
