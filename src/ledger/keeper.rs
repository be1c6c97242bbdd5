//! What an operator does with a ledger as a whole: create it, look at it, and accept that it has lost something. A
//! process never decides any of this by itself. See docs/promise.md.

use async_trait::async_trait;

use crate::payouts::ports::StoreError;
use payout_domain::ids::MchId;

/// Identifies one ledger for good; random, 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerId(String);

impl LedgerId {
    /// Reads an id from a store; `None` if the text is not an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self(text.to_owned()))
    }

    /// A new random id.
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

/// The state of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds no ledger, and no remains of one.
    None,
    /// It holds a ledger, and everything that the ledger knows of.
    Whole {
        /// The ledger.
        id: LedgerId,
        /// How many merchants have records in it; `None` if the store does not count them.
        merchants: Option<usize>,
    },
    /// It has forgotten something: the ledger as a whole (`id` is `None`), or records of these merchants.
    Lost {
        /// The ledger, if its identity is left.
        id: Option<LedgerId>,
        /// The merchants whose records are gone in part or completely, as far as the store can tell.
        merchants: Vec<MchId>,
    },
    /// Another process has the embedded file open, and only that process can tell.
    InUse,
}

/// A store, for an operator who decides about the ledger in it. The texts of its errors are whole sentences for
/// people, and name the place.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// Where the store is, for people. Shows no password.
    fn place(&self) -> String;

    /// Creates a ledger in a store that holds none.
    ///
    /// # Errors
    /// When the store holds a ledger or the remains of one, or cannot be written, then [`StoreError`].
    async fn create(&self) -> Result<LedgerId, StoreError>;

    /// The state of the store. Changes nothing.
    ///
    /// # Errors
    /// When the store cannot be read, then [`StoreError`].
    async fn status(&self) -> Result<Standing, StoreError>;

    /// From now on treats what the store holds as the whole ledger, whatever is missing. Returns the ledger, and what
    /// had been lost.
    ///
    /// # Errors
    /// When nothing is lost, the store never held a ledger, or it cannot be written, then [`StoreError`].
    async fn accept_loss(&self) -> Result<(LedgerId, Standing), StoreError>;
}
