//! What a person does with a ledger as a whole: make it, look at it, and accept that it has lost something. A process never
//! decides any of this by itself. Document: specification, section 5.

use async_trait::async_trait;

use crate::payouts::ports::StoreError;
use payout_domain::ids::MchId;

/// Names one ledger for good; random, 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerId(String);

impl LedgerId {
    /// As it stands in a store; `None` where the text is no id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self(text.to_owned()))
    }

    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for LedgerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a store stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds no ledger, and nothing that looks like the rest of one.
    None,
    /// It holds a ledger, and all that the ledger knows of.
    Whole {
        /// The ledger.
        id: LedgerId,
        /// How many merchants it has records of; `None` where the store does not count them.
        merchants: Option<usize>,
    },
    /// It has forgotten something: the ledger as a whole (`id` is `None`), or what it held of these merchants.
    Lost {
        /// The ledger, where its identity is left.
        id: Option<LedgerId>,
        /// The merchants whose records are gone in part or as a whole, as far as the store tells.
        merchants: Vec<MchId>,
    },
    /// Another process has the embedded file open, and only that one can tell.
    InUse,
}

/// A store, seen by somebody who decides about the ledger in it. The texts of its errors are whole sentences for people, which
/// name the place.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// Where the store is, for people; shows no password.
    fn place(&self) -> String;

    /// Makes a ledger where there is none.
    ///
    /// # Errors
    /// When there is one, the rest of one, or the store cannot be written, then [`StoreError`].
    async fn create(&self) -> Result<LedgerId, StoreError>;

    /// Looks; changes nothing.
    ///
    /// # Errors
    /// When the store cannot be read, then [`StoreError`].
    async fn status(&self) -> Result<Standing, StoreError>;

    /// Takes what is there for the whole ledger from now on, whatever is missing. Returns what had been lost.
    ///
    /// # Errors
    /// When nothing is lost, the store never held a ledger, or it cannot be written, then [`StoreError`].
    async fn accept_loss(&self) -> Result<(LedgerId, Standing), StoreError>;
}
