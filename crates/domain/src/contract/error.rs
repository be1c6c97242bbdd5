//! The codes that tell a caller why a request was not accepted, or why a payout did not succeed (`docs/api.md`), and
//! the error that carries a code and its text. The texts are made in [`reason`](crate::contract::reason).

use std::borrow::Cow;

use crate::contract::reason::{FieldRule, NotSent, Reason};
use crate::encoding::DecodeError;

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

/// An error in the contract's terms. Only a [`Reason`] or [`ApiError::unserved`] makes one, so each text is Chinese
/// and has the code that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
#[non_exhaustive]
pub struct ApiError {
    /// Becomes `errCode`.
    pub code: ErrCode,
    /// Becomes `errCodeDes`, and also `returnMsg` if the request was not accepted.
    pub text: Cow<'static, str>,
}

impl From<Reason> for ApiError {
    fn from(reason: Reason) -> Self {
        Self {
            code: reason.code(),
            text: reason.chinese(),
        }
    }
}

/// What is wrong with a request outside the contract's own terms, e.g. in its HTTP.
pub trait Chinese {
    /// What is wrong and what to do, for the caller.
    fn chinese(&self) -> Cow<'static, str>;
}

impl ApiError {
    /// A request that no flow of the contract has seen.
    #[must_use]
    pub fn unserved(code: ErrCode, why: &impl Chinese) -> Self {
        Self {
            code,
            text: Cow::Owned(format!("请求未受理: {}", why.chinese())),
        }
    }

    /// A field that breaks a rule: `amount 金额不正确: 须为 …`.
    #[must_use]
    pub fn field(name: impl Into<Cow<'static, str>>, rule: FieldRule) -> Self {
        Reason::Field(name.into(), rule).into()
    }

    /// A required field that is absent or blank.
    #[must_use]
    pub fn missing(name: &'static str) -> Self {
        Self::field(name, FieldRule::Required)
    }

    /// A body that cannot be read.
    #[must_use]
    pub fn body(why: DecodeError) -> Self {
        Reason::Body(why).into()
    }

    /// A field of a repeat that differs from the first request.
    #[must_use]
    pub fn differs(name: &'static str) -> Self {
        Reason::Differs(name).into()
    }

    /// No merchant entry matches the request.
    #[must_use]
    pub fn no_merchant() -> Self {
        Reason::NoMerchant.into()
    }

    /// The user id is unknown under this app.
    #[must_use]
    pub fn no_openid() -> Self {
        Reason::NoOpenid.into()
    }

    /// The sidecar has sent nothing and recorded nothing; the caller may use the same number again.
    #[must_use]
    pub fn not_sent(why: NotSent) -> Self {
        Reason::NotSent(why).into()
    }

    /// The order may have been paid.
    #[must_use]
    pub fn unknown() -> Self {
        Reason::Unknown.into()
    }

    /// Another request is paying this order right now.
    #[must_use]
    pub fn processing() -> Self {
        Reason::Processing.into()
    }
}
