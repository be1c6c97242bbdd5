//! Orders for the stores' own tests.

use std::sync::Arc;

use crate::rules::fields::Fields;
use crate::rules::order::step::{Event, Policy, Step, step};
use crate::rules::order::tests::claimed;
use crate::rules::order::{Order, UpstreamKind};
use crate::rules::outcome::Evidence;
use crate::rules::term::{Fen, OrderNo};

pub(super) fn order(no: &str, amount: i64) -> Order {
    let mut order = claimed(UpstreamKind::Handler);
    order.key.order_no = OrderNo::parse(no).unwrap();
    order.amount = Fen::new(amount).unwrap();
    let parameters = Arc::make_mut(&mut order.parameters);
    parameters.set("remark", "备注\r\n\"]]>");
    parameters.set_number("amount", amount);
    order
}

/// An accepted v3 bill that waits for its user.
pub(super) fn bill(no: &str, amount: i64) -> Order {
    let mut order = order(no, amount);
    order.upstream = UpstreamKind::TransferBill;
    let event = Event::Attempted {
        version: order.version,
        evidence: Evidence::Opened {
            fields: Fields::new(),
            status: "WAIT_USER_CONFIRM".into(),
        },
    };
    let policy = Policy {
        refuses_doubles: true,
        not_found_after: std::time::Duration::from_secs(86_400),
    };
    match step(&order, event, policy, order.created_at, 0) {
        Step::Become(next) => *next,
        other => panic!("{other:?}"),
    }
}

pub(super) fn settled(order: &Order) -> Order {
    let mut fields = Fields::new();
    fields.set("sendListid", "100000000020150520314766074200");
    let event = Event::Attempted {
        version: order.version,
        evidence: Evidence::Accepted { fields },
    };
    let policy = Policy {
        refuses_doubles: true,
        not_found_after: std::time::Duration::from_secs(86_400),
    };
    match step(order, event, policy, order.created_at, 0) {
        Step::Become(next) => *next,
        other => panic!("{other:?}"),
    }
}
