//! The codes that tell a caller why a request was not accepted, or why a payout did not succeed (`docs/api.md`).

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
