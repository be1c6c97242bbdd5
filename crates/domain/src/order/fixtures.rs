//! Orders with which a test begins, here and in other packages (feature `fixtures`).

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot begin fails, as it should"
)]

use std::sync::Arc;
use std::time::Duration;

use super::{Destination, Lease, NewOrder, Order, Pinned};
use crate::contract::send::SendRequest;
use crate::encoding::Encoding;
use crate::fields::{Fields, Value};
use crate::ids::{HandlerId, LedgerTime, Millis, Moment, OpenId};
use crate::json;

/// When the tests' orders are claimed.
pub const NOW: Moment = Moment {
    wall: Millis(1_795_449_599_999),
    ledger: LedgerTime(1_000_000),
};

/// How long their leases last.
pub const LEASE: Duration = Duration::from_secs(30);

/// A handler to which tests send orders.
pub fn at_handler() -> Destination {
    Destination::Handler(HandlerId::parse("http://127.0.0.1:8000").unwrap())
}

/// A request of user `user-1` for 100 fen; `changes` replaces fields.
pub fn request(changes: &[(&str, &str)]) -> SendRequest {
    let mut fields = json::decode(
        r#"{"wxAppId":"wx1","mchId":"19","mchBillno":"A1","openid":"user-1","amount":100,"clientIp":"10.0.0.1","actName":"a","remark":"r","tradeRecordId":7}"#,
    )
    .unwrap()
    .into_owned();
    for (name, text) in changes {
        fields.take(name);
        fields
            .push((*name).to_owned().into(), Value::Text((*text).to_owned().into()))
            .unwrap();
    }
    SendRequest::read(fields).unwrap()
}

/// A lease with this nonce.
pub fn lease(nonce: u64) -> Lease {
    Lease { nonce, length: LEASE }
}

/// An order that was just claimed.
pub fn claimed(upstream: Destination) -> Order {
    let new = NewOrder {
        upstream,
        encoding: Encoding::Json,
        openid: OpenId::parse("oX12abcdefghijk9f").unwrap(),
        parameters: Fields::new(),
        charges: vec![],
    };
    Order::claimed(&request(&[]), new, lease(1), NOW)
}

/// What the order's claim has pinned, for tests that need an order claimed in another way.
pub fn pinned_mut(order: &mut Order) -> &mut Pinned {
    Arc::make_mut(&mut order.pinned)
}
