//! The reply to a request to pay, before it becomes the contract's fields. Not here: encodings and HTTP.

use std::sync::Arc;

use payout_domain::contract::answer::{Disclosure, failed_by, not_taken, recorded};
use payout_domain::contract::error::ApiError;
use payout_domain::fields::Fields;
use payout_domain::ids::OrderKey;
use payout_domain::order::Order;

/// The reply to a request to pay.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The request does not fit this merchant's product. It was not taken: nothing was sent or recorded.
    NotTaken(ApiError),
    /// The request failed for one of the contract's own reasons.
    Failed(ApiError),
    /// What the record says.
    Recorded(Arc<Order>),
}

impl Reply {
    /// The answer's fields.
    #[must_use]
    pub fn into_fields(self, key: &OrderKey, disclosure: Disclosure) -> Fields<'static> {
        match self {
            Self::NotTaken(fault) => not_taken(&fault, Some(key.order_no.as_str())),
            Self::Failed(fault) => failed_by(&fault, key),
            Self::Recorded(order) => recorded(&order, disclosure),
        }
    }
}
