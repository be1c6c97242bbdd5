//! Metrics of payouts: orders and fen by outcome and merchant, claims that a limit refused, and how much of the day's
//! limit is used up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use payout_domain::ids::MchId;
use payout_domain::order::{Attention, Order, State, StateName};

/// The label for merchants that the configuration does not name by number: what callers choose is no label.
const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    mch_id: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MerchantLabels {
    mch_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgeLabels {
    age: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The classes of age, and the longest age in each.
const AGES: [(&str, Duration); 4] = [
    ("1m", Duration::from_secs(60)),
    ("1h", Duration::from_secs(3600)),
    ("1d", Duration::from_secs(86_400)),
    ("older", Duration::MAX),
];

/// The metric families.
#[derive(Clone)]
pub struct PayoutMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    fen: Family<OutcomeLabels, Counter>,
    over_limit: Family<MerchantLabels, Counter>,
    unknown: Family<AgeLabels, Gauge>,
    attention: Family<ReasonLabels, Gauge>,
    day: Family<MerchantLabels, Gauge>,
    day_limit: Family<MerchantLabels, Gauge>,
    merchants: Arc<ArcSwap<BTreeSet<MchId>>>,
}

impl PayoutMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            outcomes: Family::default(),
            fen: Family::default(),
            over_limit: Family::default(),
            unknown: Family::default(),
            attention: Family::default(),
            day: Family::default(),
            day_limit: Family::default(),
            merchants: Arc::default(),
        };
        registry.register(
            "orders",
            "Orders that this process recorded as succeeded, refused or unknown; one that was refused or unknown and then \
             paid counts for both",
            metrics.outcomes.clone(),
        );
        registry.register("fen", "Their amounts, in fen", metrics.fen.clone());
        registry.register(
            "orders_over_limit",
            "Claims that were refused for a limit of [limits]",
            metrics.over_limit.clone(),
        );
        registry.register(
            "unknown_orders",
            "Orders that are perhaps paid, by how long that has been so: up to a minute, an hour, a day, or longer",
            metrics.unknown.clone(),
        );
        registry.register(
            "merchant_day_fen",
            "Fen that this day's payouts hold of per_merchant_per_day, of all replicas",
            metrics.day.clone(),
        );
        registry.register(
            "merchant_day_limit_fen",
            "per_merchant_per_day, where it is set",
            metrics.day_limit.clone(),
        );
        registry.register(
            "attention_orders",
            "Unsettled orders that need a person, by reason: look for them in the audit log, or list them as unknown",
            metrics.attention.clone(),
        );
        metrics.unknown(std::iter::empty());
        metrics.attention(std::iter::empty());
        metrics
    }

    /// Sets how many orders are unknown now, by the class of their age.
    pub fn unknown(&self, ages: impl Iterator<Item = Duration>) {
        let mut counts = AGES.map(|(age, _)| (age, 0_i64));
        for order in ages {
            let class = AGES.iter().position(|(_, most)| order <= *most);
            if let Some((_, count)) = class.and_then(|class| counts.get_mut(class)) {
                *count = count.saturating_add(1);
            }
        }
        for (age, count) in counts {
            self.unknown.get_or_create(&AgeLabels { age }).set(count);
        }
    }

    /// Sets how many orders need a person now, by reason.
    pub fn attention(&self, reasons: impl Iterator<Item = Attention>) {
        let mut counts = Attention::ALL.map(|reason| (reason, 0_i64));
        for found in reasons {
            if let Some((_, count)) = counts.iter_mut().find(|(reason, _)| *reason == found) {
                *count = count.saturating_add(1);
            }
        }
        for (reason, count) in counts {
            let labels = ReasonLabels {
                reason: reason.as_str(),
            };
            self.attention.get_or_create(&labels).set(count);
        }
    }

    /// Sets how many fen of `limit` each merchant has used up today. `used` is empty if nothing is limited.
    pub fn day(&self, used: Vec<(MchId, i64)>, limit: i64) {
        self.day.clear();
        self.day_limit.clear();
        for (mch_id, used) in used {
            let labels = MerchantLabels {
                mch_id: mch_id.as_str().to_owned(),
            };
            self.day.get_or_create(&labels).set(used);
            self.day_limit.get_or_create(&labels).set(limit);
        }
    }

    /// Sets the merchants that have a label of their own from now on.
    pub fn tell_apart(&self, merchants: BTreeSet<MchId>) {
        self.merchants.store(Arc::new(merchants));
    }

    /// The record of an order has changed.
    pub fn recorded(&self, before: Option<StateName>, after: &Order) {
        let outcome = match &after.state {
            State::Pending(_) => return,
            State::Unknown(_) => "unknown",
            State::Succeeded(_) => "succeeded",
            State::Refused(_) => "refused",
        };
        if before == Some(after.state.name()) {
            return;
        }
        let labels = OutcomeLabels {
            mch_id: self.label(&after.key.mch_id),
            outcome,
        };
        self.outcomes.get_or_create(&labels).inc();
        let fen = u64::try_from(after.amount.get()).unwrap_or_default();
        self.fen.get_or_create(&labels).inc_by(fen);
    }

    /// A limit refused a claim.
    pub fn refused_for_a_limit(&self, order: &Order) {
        let mch_id = self.label(&order.key.mch_id);
        self.over_limit.get_or_create(&MerchantLabels { mch_id }).inc();
    }

    /// A merchant's label: its number if the configuration names it, otherwise `other`, since callers choose it.
    #[must_use]
    pub fn label(&self, mch_id: &MchId) -> String {
        if self.merchants.load().contains(mch_id) {
            mch_id.as_str().to_owned()
        } else {
            OTHER.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_orders_are_counted_by_age_and_those_that_are_settled_no_more() {
        let mut registry = Registry::default();
        let metrics = PayoutMetrics::register(&mut registry);
        let shown = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let lines = text.lines().filter(|line| line.starts_with("unknown_orders{"));
            let mut shown: Vec<String> = lines.map(str::to_owned).collect();
            shown.sort();
            shown
        };
        let seconds = |all: &[u64]| all.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
        metrics.unknown(seconds(&[0, 60, 61, 3600, 86_400, 86_401, 9_999_999]).into_iter());
        assert_eq!(
            shown(),
            [
                "unknown_orders{age=\"1d\"} 1",
                "unknown_orders{age=\"1h\"} 2",
                "unknown_orders{age=\"1m\"} 2",
                "unknown_orders{age=\"older\"} 2"
            ]
        );
        metrics.unknown(seconds(&[1]).into_iter());
        assert!(
            shown().contains(&"unknown_orders{age=\"older\"} 0".to_owned()),
            "{:?}",
            shown()
        );
    }
}
