//! The states of a bill: which are final, what each means for the order, and the contract's word for it
//! (`docs/wechat-pay.md`).

/// A bill's state, in WeChat's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BillState {
    /// WeChat has taken the request, but neither funded nor made the bill yet. A repeat is told what became of it.
    Accepted,
    /// WeChat is locking the funds, and they may be too few.
    Processing,
    /// Made and funded: the user must confirm it within 24 hours.
    WaitUserConfirm,
    /// The user has confirmed; the money is on its way.
    Transfering,
    /// Paid.
    Success,
    /// Not paid; a new payment needs a new number.
    Fail,
    /// WeChat is withdrawing it.
    Canceling,
    /// Withdrawn; not paid.
    Cancelled,
}

/// What a state says about the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not decided: nothing is known about the money.
    Undecided,
    /// Made, and waiting for the user, who needs `package_info` from the response to confirm it.
    Waiting,
    /// Made and confirmed.
    Accepted,
    /// Certainly not paid, and the number is spent.
    Unpaid,
}

impl BillState {
    /// Reads WeChat's word; `None` if WeChat does not document it.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "ACCEPTED" => Self::Accepted,
            "PROCESSING" => Self::Processing,
            "WAIT_USER_CONFIRM" => Self::WaitUserConfirm,
            "TRANSFERING" => Self::Transfering,
            "SUCCESS" => Self::Success,
            "FAIL" => Self::Fail,
            "CANCELING" => Self::Canceling,
            "CANCELLED" => Self::Cancelled,
            _ => return None,
        })
    }

    /// What it says about the money.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::Accepted | Self::Processing | Self::Canceling => Stage::Undecided,
            Self::WaitUserConfirm => Stage::Waiting,
            Self::Transfering | Self::Success => Stage::Accepted,
            Self::Fail | Self::Cancelled => Stage::Unpaid,
        }
    }

    /// Whether no other state follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Fail | Self::Cancelled)
    }

    /// The contract's `status` for it (`docs/api.md`): there are three words for transfers.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::Accepted
            | Self::Processing
            | Self::WaitUserConfirm
            | Self::Transfering
            | Self::Canceling => "PROCESSING",
            Self::Success => "SUCCESS",
            Self::Fail | Self::Cancelled => "FAILED",
        }
    }
}

/// Whether a recorded word is a final state.
#[must_use]
pub fn is_final(word: Option<&str>) -> bool {
    word.and_then(BillState::parse).is_some_and(BillState::is_final)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_document() {
        for (word, stage, is_final, status) in [
            ("ACCEPTED", Stage::Undecided, false, "PROCESSING"),
            ("PROCESSING", Stage::Undecided, false, "PROCESSING"),
            ("WAIT_USER_CONFIRM", Stage::Waiting, false, "PROCESSING"),
            ("TRANSFERING", Stage::Accepted, false, "PROCESSING"),
            ("SUCCESS", Stage::Accepted, true, "SUCCESS"),
            ("FAIL", Stage::Unpaid, true, "FAILED"),
            ("CANCELING", Stage::Undecided, false, "PROCESSING"),
            ("CANCELLED", Stage::Unpaid, true, "FAILED"),
        ] {
            let state = BillState::parse(word).unwrap();
            assert_eq!(
                (state.stage(), state.is_final(), state.status()),
                (stage, is_final, status),
                "{word}"
            );
            assert_eq!(super::is_final(Some(word)), is_final, "{word}");
        }
        for unknown in ["", "TRANSFERRING", "CANCELED", "success", "SENT"] {
            assert_eq!(BillState::parse(unknown), None, "{unknown}");
        }
        assert!(!is_final(None));
    }
}
