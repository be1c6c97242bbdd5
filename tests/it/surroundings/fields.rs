//! Field names that differ from a contract field's only in case or similar spelling.

use super::{at_handler, on_files};
use crate::support::sidecar::{BOTH, MERCHANT, Payout, Sidecar, To, Upstream, embedded};

/// A second amount, payee or number, under a name that a case-insensitive decoder takes for the contract's.
const LOOK_ALIKES: [(&str, &str); 8] = [
    ("Amount", "9999"),
    ("AMOUNT", "9999"),
    ("totalamount", "9999"),
    ("openId", "user-2"),
    ("MchBillNo", "ANOTHER1"),
    ("mchid", "1900000999"),
    ("mch_id", "1900000999"),
    // Go's JSON decoder takes a long s for an s.
    ("wi\u{17f}hing", "another"),
];

/// A handler whose decoder ignores case could use another amount, payee or number than the canonical one.
#[tokio::test(flavor = "multi_thread")]
async fn no_handler_is_given_a_contract_field_in_other_letters() {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = on_files(&dir, &at_handler(MERCHANT, upstream.fake.addr(), ""));
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    for encoding in BOTH {
        for (n, (name, value)) in LOOK_ALIKES.into_iter().enumerate() {
            let payout = Payout::new(&format!("H{n}")).with(name, value);
            let told = sidecar.pay(encoding, &payout).await;
            assert_eq!(told.code(), "PARAM_ERROR", "{name}: {}", told.body);
            assert!(told.field("errCodeDes").contains(name), "{name}: {}", told.body);
        }
    }
    assert_eq!(upstream.fake.books().requests(), []);
    // The sidecar forwards a field whose name resembles no contract field.
    let payout = Payout::new("H9").with("campaign", "spring");
    assert_eq!(sidecar.pay(BOTH[0], &payout).await.code(), "SUCCESS");
    let books = upstream.fake.books();
    assert_eq!(books.requests()[0].fields["campaign"], "spring");
}

/// WeChat Pay gets only its documented fields.
#[tokio::test(flavor = "multi_thread")]
async fn wechat_pay_is_sent_the_canonical_fields_only() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    for (n, (name, value)) in LOOK_ALIKES.into_iter().enumerate() {
        let payout = Payout::new(&format!("W{n}")).with(name, value);
        let told = sidecar.pay(BOTH[n % 2], &payout).await;
        assert_eq!(told.code(), "SUCCESS", "{name}: {}", told.body);
        let books = upstream.fake.books();
        let payment = books.payments().last().unwrap();
        let paid = (payment.mch_id.as_str(), payment.order_no.as_str(), payment.amount);
        assert_eq!(paid, (MERCHANT, payout.order_no.as_str(), 100), "{name}");
        assert!(!payment.parameters.values().any(|sent| sent == value), "{name}");
    }
}
