//! WeChat Pay's side of the rules (`docs/wechat-pay.md`): which product, which fields, which signature, and what a
//! response proves. Connections are elsewhere.

pub mod codes;

pub mod sign;

pub mod v2;

pub mod v3;

use serde::{Deserialize, Serialize};

/// A v2 payout product of WeChat Pay, as the configuration's `product` and a record name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Product {
    /// Cash red packet (现金红包), v2 `sendredpack`.
    Redpack,
    /// Mini-program red packet (小程序红包), v2 `sendminiprogramhb`.
    MiniProgramRedpack,
    /// Enterprise payment to balance (企业付款到零钱), v2 `promotion/transfers`.
    Transfer,
}
