//! A customer's handler. Document: specification, section 6, `to = "handler"`.
//!
//! [`request`] composes what it is sent, [`answer`] reads what its answers prove.

mod answer;
mod request;

pub use answer::{evidence, finding};
pub use request::{body, parameters, question};

/// The path of both sides for paying. Source: specification, section 2.
pub const SEND_PATH: &str = "/pay/sendApiRedPack";
/// The path of both sides for asking. Source: specification, section 2.
pub const STATUS_PATH: &str = "/pay/getApiRedPacketStatus";
