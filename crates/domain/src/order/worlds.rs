//! Enumerates small worlds: every sequence of events up to a length, over one order and each kind of upstream,
//! checked against a plain model of the promise.

use std::time::Duration;

use super::fixtures::*;
use super::repeat::Repeat;
use super::step::{Event, Policy, Step, step};
use super::tests::*;
use super::*;
use crate::outcome::{Class, Evidence, Finding, Found};

/// What the upstream has really done with the order, in the enumerated worlds.
#[derive(Clone, Debug, Default)]
struct Books {
    paid: u32,
}

/// One thing that can happen in a small world.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Happening {
    PaidAndSaidSo,
    PaidInSilence,
    RejectedUnprocessed,
    RefusedInSilence,
    NeverSent,
    LeaseLapses,
    AskedTruthfully,
    AskedInVain,
    RepeatSends,
    AYearPasses,
}

const HAPPENINGS: [Happening; 10] = [
    Happening::PaidAndSaidSo,
    Happening::PaidInSilence,
    Happening::RejectedUnprocessed,
    Happening::RefusedInSilence,
    Happening::NeverSent,
    Happening::LeaseLapses,
    Happening::AskedTruthfully,
    Happening::AskedInVain,
    Happening::RepeatSends,
    Happening::AYearPasses,
];

struct World {
    order: Option<Order>,
    books: Books,
    now: Moment,
    policy: Policy,
}

impl World {
    fn pass(&mut self, span: Duration) {
        self.now = Moment {
            wall: self.now.wall.after(span),
            ledger: self.now.ledger.after(span),
        };
    }

    /// Applies the event if it can happen in this state; `false` if it cannot.
    fn happen(&mut self, happening: Happening) -> bool {
        let Some(order) = self.order.clone() else {
            return false;
        };
        let pending = matches!(order.state, State::Pending(_));
        // An upstream that refuses doubles pays an order once, however often it is sent.
        let pays = |books: &mut Books, policy: Policy| {
            if !policy.refuses_doubles || books.paid == 0 {
                books.paid += 1;
            }
        };
        let event = match happening {
            Happening::PaidAndSaidSo if pending => {
                pays(&mut self.books, self.policy);
                attempt(&order, accepted())
            }
            Happening::PaidInSilence if pending => {
                pays(&mut self.books, self.policy);
                attempt(&order, silence())
            }
            Happening::RejectedUnprocessed if pending => {
                attempt(&order, declined(Class::RejectedUnprocessed))
            }
            Happening::RefusedInSilence if pending => attempt(&order, silence()),
            Happening::NeverSent if pending => attempt(&order, Evidence::NeverSent { why: String::new() }),
            Happening::LeaseLapses if pending => {
                self.pass(LEASE);
                Event::Watched(LEASE)
            }
            // No request is under way any more when "no such order" was heard for long enough.
            Happening::AskedTruthfully => Event::Asked {
                finding: found(if self.books.paid > 0 {
                    Found::Accepted {
                        fields: Fields::new(),
                    }
                } else {
                    Found::NoSuchOrder
                }),
                heard: HANDLER.not_found_after,
            },
            Happening::AskedInVain => asked(Finding::unclear("")),
            Happening::RepeatSends => {
                let first = order.repeat(&request(&[]), self.now);
                let what = if first == Repeat::AskFirst {
                    order.repeat_unsettled(self.policy, self.now)
                } else {
                    first
                };
                if !matches!(what, Repeat::SendAgain { .. }) {
                    return false;
                }
                self.pass(Duration::from_secs(1));
                self.order = order.claimed_again(lease(2), vec![], self.now);
                assert!(
                    self.order.is_some(),
                    "what may be sent again can be claimed again: {order:?}"
                );
                return true;
            }
            Happening::AYearPasses if !pending => {
                self.pass(Duration::from_secs(365 * 86_400));
                return true;
            }
            _ => return false,
        };
        match step(&order, event, self.policy, self.now, 0) {
            Step::Stay => {}
            Step::Become(next) => self.order = Some(*next),
            Step::Remove => self.order = None,
        }
        true
    }

    fn check(&self, path: &[Happening]) {
        assert!(self.books.paid <= 1, "paid {} times: {path:?}", self.books.paid);
        let state = self.order.as_ref().map(|order| &order.state);
        if self.books.paid > 0 {
            assert!(
                !matches!(state, Some(State::Refused(_)) | None),
                "paid, and called refused: {path:?} {state:?}"
            );
        } else {
            assert!(
                !matches!(state, Some(State::Succeeded(_))),
                "called succeeded, and not paid: {path:?}"
            );
        }
    }
}

/// Checks every sequence of up to six events. The upstream says "no such order" only if it has paid nothing and no
/// request is under way, which is what `not_found_after` waits for.
#[test]
fn no_sequence_of_events_breaks_the_promise() {
    let mut worlds = 0u64;
    for (policy, upstream) in [
        (WECHAT, Destination::Wechat(Product::Redpack)),
        (WECHAT, Destination::Wechat(Product::Transfer)),
        (WECHAT, Destination::TransferBill),
        (HANDLER, at_handler()),
    ] {
        let first = claimed(upstream.clone());
        let mut stack: Vec<Vec<Happening>> = vec![vec![]];
        while let Some(path) = stack.pop() {
            let mut world = World {
                order: Some(first.clone()),
                books: Books::default(),
                now: NOW,
                policy,
            };
            if !path.iter().all(|&happening| world.happen(happening)) {
                continue;
            }
            world.check(&path);
            worlds += 1;
            if path.len() < 6 {
                stack.extend(HAPPENINGS.iter().map(|&next| [path.as_slice(), &[next]].concat()));
            }
        }
    }
    assert!(worlds > 10_000, "only {worlds} worlds were seen");
}
