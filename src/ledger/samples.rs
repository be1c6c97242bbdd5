//! Orders for the stores' own tests.

use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::ids::{Fen, LedgerTime, Millis, OrderNo, TradeRecordId};
use payout_domain::limits::{Charge, Counter};
use payout_domain::order::fixtures::{at_handler, claimed, pinned_mut};
use payout_domain::order::step::{Event, Policy, Step, step};
use payout_domain::order::{
    Absence, Before, Destination, Following, Order, Pending, Refused, State, Succeeded, Unknown, Version,
};
use payout_domain::outcome::{Evidence, Refusal};
use payout_domain::wechat::Product;

pub(super) fn order(no: &str, amount: i64) -> Order {
    let mut order = claimed(at_handler());
    let pinned = pinned_mut(&mut order);
    pinned.key.order_no = OrderNo::parse(no).unwrap();
    pinned.amount = Fen::new(amount).unwrap();
    let mut parameters = Fields::new();
    parameters.set("remark", "备注\r\n\"]]>");
    parameters.set_number("amount", amount);
    pinned.parameters = parameters.into();
    order
}

/// An accepted v3 bill that waits for its user.
pub(super) fn bill(no: &str, amount: i64) -> Order {
    let mut order = order(no, amount);
    pinned_mut(&mut order).upstream = Destination::TransferBill;
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

/// Every shape that a record can have: each state with and without its optional parts, each upstream, each counter.
pub(super) fn every_shape() -> Vec<Order> {
    let at = |millis| Millis(millis);
    let fields: Fields<'static> =
        serde_json::from_str(r#"{"a":"红包 \"\\/\u0001\u007f","b":1.50,"c":{"d":[1,null]},"e":null,"f":-7}"#)
            .unwrap();
    let unknown = |absence| Unknown {
        since: at(1),
        why: "no answer\n".into(),
        next_query_at: LedgerTime(i64::MAX),
        queries: u32::MAX,
        absence,
    };
    let absence = Absence {
        since: LedgerTime(2),
        heard_at: LedgerTime(3),
    };
    let refused = |number_spent| Refused {
        at: at(-1),
        refusal: Refusal {
            code: "NOTENOUGH".into(),
            text: "余额不足".into(),
            number_spent,
        },
    };
    let succeeded = |following| Succeeded {
        at: at(0),
        fields: fields.clone(),
        following,
    };
    let pending = |before| State::Pending(Pending { lease_ms: 5, before });
    let following = Following {
        next_query_at: LedgerTime(9),
        queries: 3,
    };
    let states = [
        pending(Before::Fresh),
        pending(Before::Refused(refused(false))),
        pending(Before::Unknown(unknown(None))),
        State::Unknown(unknown(Some(absence))),
        State::Unknown(unknown(None)),
        State::Succeeded(succeeded(None)),
        State::Succeeded(succeeded(Some(following))),
        State::Refused(refused(true)),
    ];
    let upstreams = [
        at_handler(),
        Destination::TransferBill,
        Destination::Wechat(Product::Redpack),
        Destination::Wechat(Product::MiniProgramRedpack),
        Destination::Wechat(Product::Transfer),
    ];
    let counters = [Counter::UserFen, Counter::MerchantFen, Counter::UserPayouts];
    let charge = |counter| Charge {
        counter,
        name: "user-fen:2026-11-26:wx1:\"u\"".into(),
        amount: 100,
        limit: i64::MAX,
    };
    let shapes = states.into_iter().zip(upstreams.into_iter().cycle()).enumerate();
    let shape = |(nth, (state, upstream)): (usize, (State, Destination))| {
        let mut order = order(&format!("A{nth}"), 2_147_483_647);
        order.version = Version {
            number: u64::MAX,
            nonce: 0xFEDC_BA98_7654_3210,
        };
        order.state = state;
        let pinned = pinned_mut(&mut order);
        pinned.claim = u64::MAX - nth as u64;
        pinned.trade_record_id = TradeRecordId(i64::MIN);
        pinned.upstream = upstream;
        pinned.parameters = fields.clone().into();
        if nth % 2 == 1 {
            pinned.encoding = Encoding::Xml;
        }
        if nth == 7 {
            pinned.parameters = Fields::new().into();
        }
        order.charges = counters.into_iter().take(nth % 4).map(charge).collect();
        order.returned = counters.into_iter().take(nth % 3).map(charge).collect();
        if nth % 2 == 1 {
            order.upstream_status = Some("WAIT_USER_CONFIRM".into());
        }
        if nth == 7 {
            order.history.clear();
        }
        order
    };
    shapes.map(shape).collect()
}
