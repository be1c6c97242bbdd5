//! The stub's own books: what was paid, and what was asked for.

use std::collections::BTreeMap;

use serde::Serialize;

/// A payment that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// `sendredpack`, `sendminiprogramhb`, `transfers`, `transfer-bills` or `send` (the handler).
    pub endpoint: String,
    /// Merchant.
    pub mch_id: String,
    /// Order number.
    pub order_no: String,
    /// Who was paid.
    pub openid: String,
    /// Fen.
    pub amount: i64,
    /// The payment's own number.
    pub number: String,
    /// Beijing time, `yyyy-MM-dd HH:mm:ss`.
    pub paid_at: String,
    /// Every business parameter of the request.
    pub parameters: BTreeMap<String, String>,
}

impl Payment {
    /// The amount as it is told, or another one.
    pub(super) fn told_amount(&self, wrong: bool) -> String {
        self.amount.saturating_add(i64::from(wrong)).to_string()
    }
}

/// A request for a payment or a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Which call.
    pub endpoint: String,
    /// Order number, as far as it was there.
    pub order_no: String,
    /// The request's headers.
    pub headers: Vec<(String, String)>,
    /// The request's fields.
    pub fields: BTreeMap<String, String>,
}

/// The books.
#[derive(Clone, Debug, Default)]
pub struct Books {
    payments: Vec<Payment>,
    requests: Vec<Asked>,
    statuses: BTreeMap<String, String>,
    notifications: BTreeMap<String, Posted>,
}

/// A notification as it was posted: where to, its headers, its body.
pub(super) type Posted = (String, Vec<(&'static str, String)>, String);

/// What became of a request to pay once per order number.
pub(super) enum Paid {
    /// Paid now, or before with the very same parameters.
    Once(Payment),
    /// The number is known with other parameters.
    Conflict,
}

impl Books {
    /// Every payment, in order.
    #[must_use]
    pub fn payments(&self) -> &[Payment] {
        &self.payments
    }

    /// Every request, in order.
    #[must_use]
    pub fn requests(&self) -> &[Asked] {
        &self.requests
    }

    /// How often an order was paid.
    #[must_use]
    pub fn times_paid(&self, order_no: &str) -> usize {
        self.payments
            .iter()
            .filter(|payment| payment.order_no == order_no)
            .count()
    }

    /// How often a call was made for an order.
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

    /// Makes a payment, whatever was paid before.
    pub(super) fn pay(&mut self, mut payment: Payment) -> Payment {
        let number = self.payments.len().saturating_add(1);
        payment.number = format!("1000000000{number:018}");
        payment.paid_at = beijing_now();
        self.payments.push(payment.clone());
        payment
    }

    /// Makes a payment, once per merchant and order number, as WeChat does.
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

    /// The last notification about an order.
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
