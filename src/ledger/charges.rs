//! What a change of a record owes to the limits, and what it gives back.

use payout_domain::limits::Charge;
use payout_domain::order::Order;

/// The charges that come with a change, each with its place in the new record, and those that are given back.
pub struct Difference<'a> {
    /// Charged, unless it would pass its limit.
    pub charged: Vec<(usize, &'a Charge)>,
    /// Given back.
    pub returned: Vec<&'a Charge>,
}

impl<'a> Difference<'a> {
    /// From a record (`None`: there was none) to the next one (`None`: it is removed).
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

/// The Beijing day in a sum's name (`user-fen:20000:…`), by which old sums are cleared away.
#[must_use]
pub fn day_of(name: &str) -> Option<i64> {
    name.split(':').nth(1)?.parse().ok()
}
