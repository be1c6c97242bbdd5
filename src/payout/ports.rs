//! What the flow needs from the world, as small traits; each says what an implementation must guarantee.

use async_trait::async_trait;

use crate::rules::term::{OpenId, UserId, WxAppId};

/// Why a user id could not be looked up. Nothing is known of the user then; "no openid" is `Ok(None)`, not an error.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The store is out of reach or answered with an error; `0` says which and how, for the operator.
    #[error("the identity store cannot be asked: {0}")]
    Unreachable(String),
    /// The store holds something that is no openid (e.g. 100 characters, or a blank in it).
    #[error("the identity store holds no openid under {key}: {rule}")]
    NotAnOpenId {
        /// The key or row, with the user id shortened.
        key: String,
        /// The rule that is broken.
        rule: &'static str,
    },
}

/// Maps a user id to the openid under one app (specification, section 4).
#[async_trait]
pub trait Identity: Send + Sync + 'static {
    /// Looks the user up; `None` means that the store was asked and knows no openid.
    ///
    /// # Errors
    /// When the store cannot be asked or holds no openid, then [`LookupError`].
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn openid(&self, app: &WxAppId, user: &UserId) -> Result<Option<OpenId>, LookupError>;

    /// Whether the store answers now; asked by `/readyz`.
    ///
    /// # Errors
    /// When it does not, then [`LookupError::Unreachable`].
    async fn ready(&self) -> Result<(), LookupError>;
}
