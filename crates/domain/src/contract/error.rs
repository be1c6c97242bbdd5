//! What the caller is told when a request is not taken or a payout does not succeed: a code and a text that names the
//! field. Document: specification, section 2.3.

use std::borrow::Cow;

/// The contract's own error codes. WeChat's are passed on as they came and are no variants here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrCode {
    /// Malformed, or differs from the first request with this order number.
    ParamError,
    /// The user id has no openid under this app.
    OpenidError,
    /// Outcome unknown, or nothing sent for now.
    SystemError,
    /// The same order is being paid by another request right now.
    Processing,
    /// Caller, merchant or app is not allowed here.
    NoAuth,
    /// The request's `sign` is wrong.
    SignError,
    /// Over a configured limit of fen.
    AmountLimit,
    /// Over a configured number of payouts.
    FreqLimit,
    /// An order nobody has seen (status only).
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

/// A refusal in the contract's terms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ApiError {
    /// Becomes `errCode`.
    pub code: ErrCode,
    /// Becomes `errCodeDes`, and `returnMsg` where the request was not taken.
    pub text: Cow<'static, str>,
}

impl ApiError {
    /// A refusal with a text of its own.
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

    /// A body that could not be read; `why` is a codec's text.
    #[must_use]
    pub fn body(why: &str) -> Self {
        Self::new(ErrCode::ParamError, format!("参数格式校验错误: {why}"))
    }

    /// A field of a repeat that is not what the first request said.
    #[must_use]
    pub fn differs(name: &str) -> Self {
        Self::new(
            ErrCode::ParamError,
            format!("参数与首次请求不一致: {name} differs from the first request with this mchBillno"),
        )
    }

    /// No merchant entry matches.
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

    /// Nothing was sent and nothing recorded; the same number may be used again.
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
