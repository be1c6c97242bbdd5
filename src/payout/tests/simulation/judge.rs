//! The judge of a run: the upstream's own books against the ledger.

use super::world::Shared;
use crate::rules::order::State;

/// What must be so in the end.
pub(super) fn judge(shared: &Shared) {
    let orders = shared.orders.lock().unwrap();
    for (key, payments) in shared.payments.lock().unwrap().iter() {
        assert_eq!(payments.len(), 1, "{key} was paid {payments:?}");
        if shared.is_forgotten(key) {
            // The promise that is left is the upstream's: once, to one person, one amount.
            continue;
        }
        let order = orders
            .get(key)
            .unwrap_or_else(|| panic!("{key} was paid, and there is no record"));
        assert_eq!(
            payments,
            &[(order.openid.as_str().to_owned(), order.amount.get())],
            "{key}: another person or amount"
        );
        assert!(
            matches!(order.state, State::Succeeded(_)),
            "{key} was paid, and is {:?}",
            order.state
        );
    }
    for (key, order) in orders.iter() {
        match &order.state {
            State::Succeeded(_) => {
                assert_eq!(shared.times_paid(key), 1, "{key} is succeeded, and was not paid")
            }
            State::Refused(_) => assert!(
                shared.times_paid(key) == 0 || shared.is_forgotten(key),
                "{key} is refused, and was paid"
            ),
            State::Pending(_) | State::Unknown(_) => panic!("{key} did not settle: {:?}", order.state),
        }
    }
}
