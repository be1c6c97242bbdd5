//! Judges a run: compares the upstreams' own books with the ledger, and with what callers heard.

use std::sync::atomic::Ordering;

use super::NODE_OF_ITS_OWN;
use super::store::Process;
use super::world::{Books, Loss, Shared};
use payout_domain::ids::{Moment, OrderKey};
use payout_domain::order::State;
use payout_domain::order::schedule::QUERY_WINDOW;

/// What must hold at the end. `now` is the end by the true clock.
pub(super) fn judge(shared: &Shared, now: Moment) {
    assert_eq!(*shared.broken.lock().unwrap(), None);
    let store = shared.store.lock().unwrap();
    for (key, payments) in shared.payments.lock().unwrap().iter() {
        assert_eq!(payments.len(), 1, "{key} was paid {payments:?}");
        if shared.is_forgotten(key) {
            // Only this part of the promise is left: once, to one person, one amount.
            continue;
        }
        let order = store
            .orders
            .get(key)
            .unwrap_or_else(|| panic!("{key} was paid, and there is no record"));
        let paid = payments
            .first()
            .map(|payment| (payment.openid.as_str(), payment.amount));
        assert_eq!(
            paid,
            Some((order.openid.as_str(), order.amount.get())),
            "{key}: another person or amount"
        );
        assert!(
            !matches!(order.state, State::Refused(_)),
            "{key} was paid, and is {:?}",
            order.state
        );
    }
    for (key, order) in &store.orders {
        match &order.state {
            State::Succeeded(_) => {
                assert_eq!(shared.times_paid(key), 1, "{key} is succeeded, and was not paid")
            }
            State::Refused(_) => assert!(
                shared.times_paid(key) == 0 || shared.is_forgotten(key),
                "{key} is refused, and was paid"
            ),
            State::Pending(_) | State::Unknown(_) => {
                let doubted_since = shared.doubted_since.lock().unwrap().get(key).copied();
                // Past WeChat's window, or seemingly so by a wrong wall clock: the sidecar calls a person. It still
                // finds out what was paid within the window.
                let is_past = doubted_since.is_some_and(|since| since.elapsed() > QUERY_WINDOW);
                let by_ledger = now.ledger.since(order.doubt_since.ledger);
                let seems_past = by_ledger <= QUERY_WINDOW
                    && !order.is_within_query_window(now)
                    && shared.times_paid(key) == 0;
                let is_forgotten_upstream = shared.kind.books == Books::Wechat && (is_past || seems_past);
                // A fail-over has set the record back to an attempt outside of the window.
                let is_set_back = shared.kind.loss == Loss::LastWrites
                    && shared.kind.books == Books::Wechat
                    && shared.is_forgotten(key);
                let is_out_of_reach = is_forgotten_upstream
                    || is_set_back
                    || (shared.node_is_away.load(Ordering::Relaxed)
                        && key.mch_id.as_str() == NODE_OF_ITS_OWN)
                    || (shared.has_lost.load(Ordering::Relaxed) && shared.kind.loss == Loss::Everything);
                assert!(is_out_of_reach, "{key} did not settle: {:?}", order.state);
            }
        }
    }
}

/// If an attempt ended without an answer after its order was refused, the order must be in doubt again, once the
/// process could write that.
pub(super) fn judge_silences(shared: &Shared, process: &Process) {
    for (key, silent_at) in process.silent.lock().unwrap().iter() {
        let state = shared.state_of(key);
        let is_refused = matches!(state, Some(State::Refused(refused)) if !refused.refusal.number_spent);
        let refused_at = shared.refused_at.lock().unwrap().get(key).copied();
        assert!(
            !is_refused || refused_at.is_none_or(|refused_at| refused_at >= *silent_at),
            "{key} is told refused, and an attempt ended without an answer after it"
        );
    }
}

/// What a caller may hear at this moment: nothing that says "not paid" of an order that is paid or may still be.
/// `is_asked_here`: the answering process was paying the order all the while.
pub(super) fn judge_answer(shared: &Shared, key: &OrderKey, told: &str, is_asked_here: bool) {
    match told {
        "SYSTEMERROR" | "PROCESSING" | "PARAM_ERROR" | "SENDING" => {}
        "SUCCESS" | "SENT" => assert!(shared.times_paid(key) > 0, "{key}: told {told}, and not paid"),
        "CODE" | "NOT_FOUND" | "FAILED" | "NO_AUTH" | "OPENID_ERROR" => {
            // Refused: at this moment it is not paid, unless another caller has had it sent again since.
            let state = shared.state_of(key);
            let is_sent_again = matches!(state, Some(State::Pending(_)));
            let may_be_paid = shared.times_paid(key) > 0 || shared.may_yet_be_paid(key);
            // No store can notice a fail-over to a copy without the last writes.
            let is_excused = shared.kind.loss == Loss::LastWrites && shared.is_forgotten(key);
            assert!(
                !may_be_paid || is_excused || (is_sent_again && told == "CODE"),
                "{key}: told {told}, and paid or on its way"
            );
            assert!(
                !(is_asked_here && told == "NOT_FOUND"),
                "{key}: told {told} by the process that is paying it"
            );
        }
        other => panic!("{key} was told {other}"),
    }
}
