//! What a payout charges against the configured limits (`[limits]` in `config.toml`, `docs/promise.md`). The ledger
//! keeps the sums.

use serde::{Deserialize, Serialize};

use super::contract::error::ApiError;
use super::contract::reason::{OverLimit, Reason};
use super::day::BeijingDay;
use crate::ids::{Fen, MchId, Millis, UserId, WxAppId};

/// The configured limits; `None` means no limit. Days are Beijing days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Fen per payout.
    pub max_amount: Option<i64>,
    /// Fen per user (of one merchant and app) and day.
    pub per_user_per_day: Option<i64>,
    /// Fen per merchant and day.
    pub per_merchant_per_day: Option<i64>,
    /// Payouts per user (of one merchant and app) and day.
    pub payouts_per_user_per_day: Option<i64>,
}

/// Which sum a charge adds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counter {
    /// Fen of one user on one day.
    UserFen,
    /// Fen of the merchant on one day.
    MerchantFen,
    /// Payouts of one user on one day.
    UserPayouts,
}

/// One sum that a claim adds to, atomically with the claim. If the sum would exceed its limit, the claim fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Charge {
    /// Which sum.
    pub counter: Counter,
    /// The sum's name within the merchant: the counter, the day and, for a user's sum, app and user id.
    pub name: String,
    /// What is added: fen, or 1 payout.
    pub amount: i64,
    /// The largest value that the sum may have.
    pub limit: i64,
}

/// The name of the merchant's sum of fen on the day of `now`.
#[must_use]
pub fn merchant_day(now: Millis) -> String {
    format!("merchant-fen:{}", BeijingDay::of(now).0)
}

impl Limits {
    /// Checks the limit of a single payout.
    ///
    /// # Errors
    /// `AMOUNT_LIMIT` if the amount is over `max_amount`.
    pub fn check(&self, amount: Fen) -> Result<(), ApiError> {
        match self.max_amount {
            Some(max) if amount.get() > max => Err(Reason::OverLimit(OverLimit::Payout(max)).into()),
            Some(_) | None => Ok(()),
        }
    }

    /// What a payout at `now` charges; empty if nothing is limited.
    #[must_use]
    pub fn charges(&self, app: &WxAppId, user: &UserId, amount: Fen, now: Millis) -> Vec<Charge> {
        let day = BeijingDay::of(now).0;
        let user_name = |counter: &str| format!("{counter}:{day}:{app}:{}", user.as_str());
        let mut charges = Vec::new();
        let mut charge = |counter, name: &dyn Fn() -> String, amount, limit: Option<i64>| {
            charges.extend(limit.map(|limit| Charge {
                counter,
                name: name(),
                amount,
                limit,
            }));
        };
        charge(
            Counter::UserFen,
            &|| user_name("user-fen"),
            amount.get(),
            self.per_user_per_day,
        );
        charge(
            Counter::MerchantFen,
            &|| merchant_day(now),
            amount.get(),
            self.per_merchant_per_day,
        );
        charge(
            Counter::UserPayouts,
            &|| user_name("user-payouts"),
            1,
            self.payouts_per_user_per_day,
        );
        charges
    }
}

impl Charge {
    /// What the caller is told if this charge would exceed its limit.
    #[must_use]
    pub fn over(&self, mch_id: &MchId) -> ApiError {
        let limit = self.limit;
        let over = match self.counter {
            Counter::UserFen => OverLimit::User(limit),
            Counter::MerchantFen => OverLimit::Merchant(mch_id.clone(), limit),
            Counter::UserPayouts => OverLimit::Count(limit),
        };
        Reason::OverLimit(over).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::err_code::ErrCode;

    #[test]
    fn only_what_is_limited_is_charged() {
        let app = WxAppId::parse("wx1").unwrap();
        let user = UserId::parse("u").unwrap();
        let amount = Fen::new(30).unwrap();
        assert_eq!(Limits::default().charges(&app, &user, amount, Millis(0)), []);
        let limits = Limits {
            payouts_per_user_per_day: Some(2),
            per_user_per_day: Some(50),
            ..Limits::default()
        };
        let charges = limits.charges(&app, &user, amount, Millis(0));
        assert_eq!(
            charges
                .iter()
                .map(|c| (c.name.as_str(), c.amount, c.limit))
                .collect::<Vec<_>>(),
            [("user-fen:0:wx1:u", 30, 50), ("user-payouts:0:wx1:u", 1, 2)]
        );
        let codes: Vec<_> = charges
            .iter()
            .map(|c| c.over(&MchId::parse("1").unwrap()).code)
            .collect();
        assert_eq!(codes, [ErrCode::AmountLimit, ErrCode::FreqLimit]);
    }

    #[test]
    fn a_merchants_sum_is_named_by_its_beijing_day() {
        let limits = Limits {
            per_merchant_per_day: Some(100),
            ..Limits::default()
        };
        let (app, user) = (WxAppId::parse("wx1").unwrap(), UserId::parse("u").unwrap());
        // 16:00 UTC is midnight in Beijing.
        for (now, name) in [(57_599_999, "merchant-fen:0"), (57_600_000, "merchant-fen:1")] {
            let charges = limits.charges(&app, &user, Fen::new(30).unwrap(), Millis(now));
            assert_eq!(
                charges.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
                [name]
            );
            assert_eq!(merchant_day(Millis(now)), name);
        }
    }

    #[test]
    fn one_payout_may_be_as_large_as_the_limit() {
        let limits = Limits {
            max_amount: Some(30),
            ..Limits::default()
        };
        assert!(limits.check(Fen::new(30).unwrap()).is_ok());
        assert_eq!(
            limits.check(Fen::new(31).unwrap()).unwrap_err().code,
            ErrCode::AmountLimit
        );
    }
}
