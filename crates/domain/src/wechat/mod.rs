//! WeChat Pay's side of the rules: which product, which fields, which signature, what an answer proves.
//! Document: `wechat-pay.md`.

pub mod codes;

pub mod sign;

pub mod v2;

pub mod v3;

use serde::{Deserialize, Serialize};

/// A v2 payout product of WeChat Pay, as `product` in the configuration and as pinned in a record.
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
