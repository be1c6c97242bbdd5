//! WeChat Pay v3, merchant transfer (商家转账, `transfer-bills`): what the sidecar sends, what it believes, and what
//! that proves (`docs/wechat-pay.md`).
//!
//! [`request`] composes a bill, [`sign`] signs requests and verifies responses, [`envelope`] decrypts what WeChat
//! Pay encrypts under the APIv3 key (notifications, platform certificates), [`state`] is the table of a bill's
//! states, [`answer`] reads what a response, a query or a notification says.

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

/// The path of the call that asks for a bill's state. An order number is letters and digits, so nothing needs
/// escaping.
#[must_use]
pub fn query_path(order_no: &OrderNo) -> String {
    format!("{BILLS_PATH}/out-bill-no/{order_no}")
}

/// The path of the call that withdraws a bill before the user has confirmed it.
#[must_use]
pub fn cancel_path(order_no: &OrderNo) -> String {
    format!("{BILLS_PATH}/out-bill-no/{order_no}/cancel")
}
