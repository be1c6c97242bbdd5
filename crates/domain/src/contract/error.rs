//! The codes and texts that tell a caller why a request was not accepted, or why a payout did not succeed
//! (`docs/api.md`). A text names the field at fault.

use std::borrow::Cow;

/// The contract's own error codes. WeChat's codes pass through unchanged and are not variants here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrCode {
    /// The request is malformed, or differs from the first request with this order number.
    ParamError,
    /// The user id has no openid under this app.
    OpenidError,
    /// The outcome is unknown, or the sidecar has sent nothing for now.
    SystemError,
    /// Another request is paying the same order right now.
    Processing,
    /// The caller, the merchant or the app is not allowed here.
    NoAuth,
    /// The request's `sign` is wrong.
    SignError,
    /// Over a configured limit of fen.
    AmountLimit,
    /// Over a configured number of payouts.
    FreqLimit,
    /// Neither the ledger nor the upstream knows the order (status requests only).
    NotFound,
}

impl ErrCode {
    /// Every code. docs/api.md and docs/openapi.json list the same ones.
    pub const ALL: [Self; 9] = [
        Self::ParamError,
        Self::OpenidError,
        Self::SystemError,
        Self::Processing,
        Self::NoAuth,
        Self::SignError,
        Self::AmountLimit,
        Self::FreqLimit,
        Self::NotFound,
    ];

    /// The code as it is written in `errCode`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ParamError => "PARAM_ERROR",
            Self::OpenidError => "OPENID_ERROR",
            Self::SystemError => "SYSTEMERROR",
            Self::Processing => "PROCESSING",
            Self::NoAuth => "NO_AUTH",
            Self::SignError => "SIGN_ERROR",
            Self::AmountLimit => "AMOUNT_LIMIT",
            Self::FreqLimit => "FREQ_LIMIT",
            Self::NotFound => "NOT_FOUND",
        }
    }
}

/// An error in the contract's terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ApiError {
    /// Becomes `errCode`.
    pub code: ErrCode,
    /// Becomes `errCodeDes`, and also `returnMsg` if the request was not accepted.
    pub text: Cow<'static, str>,
}

impl ApiError {
    /// An error with a text of its own.
    #[must_use]
    pub fn new(code: ErrCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// A field that breaks a rule: `参数格式校验错误: amount must be …`.
    #[must_use]
    pub fn field(name: &str, rule: &str) -> Self {
        Self::new(ErrCode::ParamError, format!("参数格式校验错误: {name} {rule}"))
    }

    /// A required field that is absent or blank.
    #[must_use]
    pub fn missing(name: &str) -> Self {
        Self::field(name, "is required")
    }

    /// A body that cannot be read; `why` is the codec's text.
    #[must_use]
    pub fn body(why: &str) -> Self {
        Self::new(ErrCode::ParamError, format!("参数格式校验错误: {why}"))
    }

    /// A field of a repeat that differs from the first request.
    #[must_use]
    pub fn differs(name: &str) -> Self {
        Self::new(
            ErrCode::ParamError,
            format!("参数与首次请求不一致: {name} differs from the first request with this mchBillno"),
        )
    }

    /// No merchant entry matches the request.
    #[must_use]
    pub fn no_merchant() -> Self {
        Self::new(
            ErrCode::NoAuth,
            "商户未配置: no configuration for this mchId and wxAppId",
        )
    }

    /// The user id is unknown under this app.
    #[must_use]
    pub fn no_openid() -> Self {
        Self::new(
            ErrCode::OpenidError,
            "用户未绑定微信: openid (the user id) has no WeChat openid under this wxAppId",
        )
    }

    /// The sidecar has sent nothing and recorded nothing; the caller may use the same number again.
    #[must_use]
    pub fn not_sent(why: &str) -> Self {
        Self::new(
            ErrCode::SystemError,
            format!("系统繁忙, 未发起付款, 请使用原单号重试: {why}"),
        )
    }

    /// The order may have been paid.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(
            ErrCode::SystemError,
            "付款结果未知, 请使用原单号重试或查询: the outcome is not known yet",
        )
    }

    /// Another request is paying this order right now.
    #[must_use]
    pub fn processing() -> Self {
        Self::new(
            ErrCode::Processing,
            "付款处理中, 请稍后使用原单号重试或查询: this mchBillno is being paid right now",
        )
    }
}
