//! What an attempt or a query proves, and what that means for the order (`docs/promise.md`).
//!
//! An upstream returns evidence, never an error: whatever went wrong is a value here, and [`classify`] alone
//! decides what an attempt means.

use super::fields::Fields;
use super::text::kept;

/// The class of an error code: what it says about the money (`docs/wechat-pay.md`, error codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Certainly not paid; the same number may be used again.
    Refused,
    /// Not processed, because the upstream refused it before processing. Says nothing about an earlier attempt.
    RejectedUnprocessed,
    /// Certainly not paid, and the number is spent.
    NumberSpent,
    /// The upstream knows the number with other parameters; the earlier request decides.
    Conflict,
    /// Perhaps paid.
    Unknown,
}

/// What one attempt to pay proves.
#[derive(Clone, Debug, PartialEq)]
pub enum Evidence {
    /// No byte of the request can have reached the upstream.
    NeverSent {
        /// For the operator: which connection failed, and how.
        why: String,
    },
    /// The request may have reached the upstream, and no answer tells the result.
    NoAnswer {
        /// For the operator: timeout, reset, unreadable response.
        why: String,
    },
    /// The upstream accepted the order.
    Accepted {
        /// The response's own fields in the contract's names (`sendListid`, `paymentNo`, …).
        fields: Fields<'static>,
    },
    /// The upstream accepted the order, and its final state is still to come or already there: a v3 bill.
    Opened {
        /// As in [`Evidence::Accepted`].
        fields: Fields<'static>,
        /// WeChat's own word for the state.
        status: String,
    },
    /// The upstream answered with a failure.
    Declined {
        /// What the code says about the money.
        class: Class,
        /// The code, passed on as `errCode`.
        code: String,
        /// The text, passed on as `errCodeDes`; nothing branches on it.
        text: String,
    },
}

/// What the evidence of an attempt means.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing was sent: take the claim back.
    TakenBack {
        /// For the operator.
        why: String,
    },
    /// The upstream accepted the order.
    Succeeded {
        /// The response's own fields in the contract's names.
        fields: Fields<'static>,
        /// WeChat's own word for the state, if there is one.
        status: Option<String>,
    },
    /// Certainly not paid.
    Refused(Refusal),
    /// Perhaps paid.
    Unknown {
        /// For the operator.
        why: String,
    },
}

/// A refusal as the record keeps it and as callers get it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// `errCode`.
    pub code: String,
    /// `errCodeDes`.
    pub text: String,
    /// Whether the number is spent, so that a repeat gets this refusal instead of another attempt.
    pub number_spent: bool,
}

/// Decides what the evidence of one attempt means. `doubt`: an earlier attempt of the same order may have been
/// paid.
///
/// With a doubt only an acceptance or a spent number is certain. A refusal of class R would be certain too if the
/// product returns the first result for the same number. But no product documents that refusing a repeat clears the
/// first attempt, so the query decides (`docs/wechat-pay.md`, error codes).
#[must_use]
pub fn classify(evidence: Evidence, doubt: bool) -> Verdict {
    match evidence {
        Evidence::NeverSent { why } => Verdict::TakenBack { why },
        Evidence::NoAnswer { why } => Verdict::Unknown { why },
        Evidence::Accepted { fields } => Verdict::Succeeded { fields, status: None },
        Evidence::Opened { fields, status } => Verdict::Succeeded {
            fields,
            status: Some(status),
        },
        Evidence::Declined { class, code, text } => match (class, doubt) {
            (Class::NumberSpent, _) => Verdict::Refused(Refusal {
                code,
                text,
                number_spent: true,
            }),
            (Class::Refused | Class::RejectedUnprocessed, false) => Verdict::Refused(Refusal {
                code,
                text,
                number_spent: false,
            }),
            (Class::Refused | Class::RejectedUnprocessed, true) | (Class::Conflict | Class::Unknown, _) => {
                Verdict::Unknown {
                    why: format!("the upstream answered {code}: {text}"),
                }
            }
        },
    }
}

/// What a query found out about an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The upstream accepted it; `fields` as in [`Evidence::Accepted`].
    Accepted {
        /// The response's own fields in the contract's names, as far as a query tells them.
        fields: Fields<'static>,
    },
    /// Certainly not paid.
    NotPaid(Refusal),
    /// The upstream knows it and has not decided yet.
    Moving,
    /// "No such order", said explicitly. That is not the same as "not paid".
    NoSuchOrder,
    /// The upstream cannot be reached, or its response says nothing.
    Unclear {
        /// For the operator.
        why: String,
    },
}

/// A query's result: what it means for the order, and what the caller who asked is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it means.
    pub found: Found,
    /// The upstream's own word for the status (`SENT`, `PROCESSING`, …), if there is one.
    pub status: Option<String>,
    /// The fields of the status response, in the contract's names.
    pub report: Fields<'static>,
}

impl Evidence {
    /// A response that proves nothing. `why` may quote the upstream at any length and is cut.
    #[must_use]
    pub fn no_answer(why: &str) -> Self {
        Self::NoAnswer { why: kept(why) }
    }

    /// A failure in the upstream's words, which may have any length and are cut.
    #[must_use]
    pub fn declined(class: Class, code: &str, text: &str) -> Self {
        Self::Declined {
            class,
            code: kept(code),
            text: kept(text),
        }
    }
}

impl Finding {
    /// A finding that says nothing. `why` may quote the upstream at any length and is cut.
    #[must_use]
    pub fn unclear(why: &str) -> Self {
        Self {
            found: Found::Unclear { why: kept(why) },
            status: None,
            report: Fields::new(),
        }
    }

    /// "No such order".
    #[must_use]
    pub fn no_such_order() -> Self {
        Self {
            found: Found::NoSuchOrder,
            status: None,
            report: Fields::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declined(class: Class) -> Evidence {
        Evidence::Declined {
            class,
            code: "CODE".into(),
            text: "text".into(),
        }
    }

    fn refused(number_spent: bool) -> Verdict {
        Verdict::Refused(Refusal {
            code: "CODE".into(),
            text: "text".into(),
            number_spent,
        })
    }

    #[test]
    fn every_class_on_a_first_and_on_a_later_attempt() {
        let unknown = Verdict::Unknown {
            why: "the upstream answered CODE: text".into(),
        };
        for (class, first, later) in [
            (Class::Refused, refused(false), unknown.clone()),
            (Class::RejectedUnprocessed, refused(false), unknown.clone()),
            (Class::NumberSpent, refused(true), refused(true)),
            (Class::Conflict, unknown.clone(), unknown.clone()),
            (Class::Unknown, unknown.clone(), unknown.clone()),
        ] {
            assert_eq!(classify(declined(class), false), first, "{class:?}");
            assert_eq!(classify(declined(class), true), later, "{class:?}");
        }
    }

    #[test]
    fn silence_is_never_a_refusal() {
        for doubt in [false, true] {
            let why = String::from("w");
            assert_eq!(
                classify(Evidence::NoAnswer { why: why.clone() }, doubt),
                Verdict::Unknown { why: why.clone() }
            );
            assert_eq!(
                classify(Evidence::NeverSent { why: why.clone() }, doubt),
                Verdict::TakenBack { why }
            );
        }
    }
}
