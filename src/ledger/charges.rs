//! The charges that a change of a record adds to the limits' sums, and those that it gives back.

use payout_domain::limits::Charge;
use payout_domain::order::Order;

/// The charges that a change adds, each with its index in the new record, and those that it gives back.
pub struct Difference<'a> {
    /// To charge, unless one would pass its limit.
    pub charged: Vec<(usize, &'a Charge)>,
    /// To give back.
    pub returned: Vec<&'a Charge>,
}

impl<'a> Difference<'a> {
    /// The difference from a record (`None`: there was none) to the next one (`None`: it is removed).
    #[must_use]
    pub fn between(previous: Option<&'a Order>, next: Option<&'a Order>) -> Self {
        let before = previous.map_or(&[][..], |order| &order.charges);
        let after = next.map_or(&[][..], |order| &order.charges);
        let is_in = |charges: &[Charge], charge: &Charge| {
            charges
                .iter()
                .any(|other| other.name == charge.name && other.amount == charge.amount)
        };
        Self {
            charged: after
                .iter()
                .enumerate()
                .filter(|(_, charge)| !is_in(before, charge))
                .collect(),
            returned: before.iter().filter(|charge| !is_in(after, charge)).collect(),
        }
    }
}

/// The Beijing day in a sum's name (`user-fen:20000:…`). The Redis store tells today's sums from old ones by it.
#[must_use]
pub fn day_of(name: &str) -> Option<i64> {
    name.split(':').nth(1)?.parse().ok()
}
