//! The error that a caller gets: a code and its text. The texts are made in [`reason`](crate::contract::reason).

use std::borrow::Cow;

use crate::contract::err_code::ErrCode;
use crate::contract::reason::{FieldRule, NotSent, Reason};
use crate::encoding::DecodeError;

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
