//! WeChat Pay v3, merchant transfer (商家转账, `transfer-bills`): what is sent, what is believed, and what it proves.
//! Document: wechat-pay.md, sections 9 to 12.
//!
//! [`request`] composes a bill, [`sign`] signs requests and verifies answers, [`envelope`] opens what is wrapped under the
//! APIv3 key (notifications, platform certificates), [`state`] is the table of a bill's states, [`answer`] reads what an
//! answer, a query or a notification says.

pub mod answer;

pub mod envelope;

pub mod request;

pub mod sign;

pub mod state;

use crate::ids::OrderNo;

/// The path of the call that makes a bill.
pub const BILLS_PATH: &str = "/v3/fund-app/mch-transfer/transfer-bills";
/// The path of the platform certificates.
pub const CERTIFICATES_PATH: &str = "/v3/certificates";

/// The path of the call that asks how a bill stands. An order number is letters and digits, so that nothing is escaped.
#[must_use]
pub fn query_path(order_no: &OrderNo) -> String {
    format!("{BILLS_PATH}/out-bill-no/{order_no}")
}

/// The path of the call that withdraws a bill before the user has confirmed it.
#[must_use]
pub fn cancel_path(order_no: &OrderNo) -> String {
    format!("{BILLS_PATH}/out-bill-no/{order_no}/cancel")
}
