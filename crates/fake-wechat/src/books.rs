//! The fake's records: which payments it made, and which requests it got.

use std::collections::BTreeMap;

use serde::Serialize;

/// A payment that the fake made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// `sendredpack`, `sendminiprogramhb`, `transfers`, `transfer-bills` or `send` (the handler).
    pub endpoint: String,
    /// The merchant number.
    pub mch_id: String,
    /// The order number.
    pub order_no: String,
    /// The payee's openid.
    pub openid: String,
    /// The amount in fen.
    pub amount: i64,
    /// The fake's own number of the payment.
    pub number: String,
    /// When the fake paid, in Beijing time: `yyyy-MM-dd HH:mm:ss`.
    pub paid_at: String,
    /// The request's business parameters.
    pub parameters: BTreeMap<String, String>,
}

impl Payment {
    /// The amount for a response: the true one, or one fen more if `wrong`.
    pub(super) fn told_amount(&self, wrong: bool) -> String {
        self.amount.saturating_add(i64::from(wrong)).to_string()
    }
}

/// A request for a payment or a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// The name of the call.
    pub endpoint: String,
    /// The order number. Empty if the request has none.
    pub order_no: String,
    /// The request's headers.
    pub headers: Vec<(String, String)>,
    /// The request's fields.
    pub fields: BTreeMap<String, String>,
}

/// All records of a running fake.
#[derive(Clone, Debug, Default)]
pub struct Books {
    payments: Vec<Payment>,
    requests: Vec<Asked>,
    statuses: BTreeMap<String, String>,
    notifications: BTreeMap<String, Posted>,
}

/// A notification as sent: URL, headers, body.
pub(super) type Posted = (String, Vec<(&'static str, String)>, String);

/// The result of a payment that is idempotent per order number.
pub(super) enum Paid {
    /// Paid now, or earlier with the same parameters.
    Once(Payment),
    /// The fake has paid this number with other parameters.
    Conflict,
}

impl Books {
    /// Every payment, oldest first.
    #[must_use]
    pub fn payments(&self) -> &[Payment] {
        &self.payments
    }

    /// Every request, oldest first.
    #[must_use]
    pub fn requests(&self) -> &[Asked] {
        &self.requests
    }

    /// How often the fake paid an order.
    #[must_use]
    pub fn times_paid(&self, order_no: &str) -> usize {
        self.payments
            .iter()
            .filter(|payment| payment.order_no == order_no)
            .count()
    }

    /// How often it got a call for an order.
    #[must_use]
    pub fn times_asked(&self, endpoint: &str, order_no: &str) -> usize {
        self.requests
            .iter()
            .filter(|asked| asked.endpoint == endpoint && asked.order_no == order_no)
            .count()
    }

    pub(super) fn note(&mut self, asked: Asked) {
        self.requests.push(asked);
    }

    /// Makes a payment, even if the order was paid before.
    pub(super) fn pay(&mut self, mut payment: Payment) -> Payment {
        let number = self.payments.len().saturating_add(1);
        payment.number = format!("1000000000{number:018}");
        payment.paid_at = beijing_now();
        self.payments.push(payment.clone());
        payment
    }

    /// Makes a payment once per merchant and order number, like WeChat.
    pub(super) fn pay_once(&mut self, payment: Payment) -> Paid {
        match self.find(&payment.mch_id, &payment.order_no) {
            Some(earlier) if earlier.parameters == payment.parameters => Paid::Once(earlier.clone()),
            Some(_) => Paid::Conflict,
            None => Paid::Once(self.pay(payment)),
        }
    }

    pub(super) fn find(&self, mch_id: &str, order_no: &str) -> Option<&Payment> {
        self.payments
            .iter()
            .find(|payment| payment.mch_id == mch_id && payment.order_no == order_no)
    }

    /// The last notification of an order.
    pub(super) fn notification(&self, order_no: &str) -> Option<Posted> {
        self.notifications.get(order_no).cloned()
    }

    pub(super) fn keep_notification(&mut self, order_no: &str, posted: Posted) {
        self.notifications.insert(order_no.to_owned(), posted);
    }

    pub(super) fn set_status(&mut self, order_no: &str, status: &str) {
        self.statuses.insert(order_no.to_owned(), status.to_owned());
    }

    pub(super) fn status(&self, order_no: &str) -> Option<&str> {
        self.statuses.get(order_no).map(String::as_str)
    }
}

fn beijing_now() -> String {
    let now = jiff::tz::Offset::constant(8).to_datetime(jiff::Timestamp::now());
    now.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
