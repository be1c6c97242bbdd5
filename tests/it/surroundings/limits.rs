//! Limits that a reload lowers, and payments that arrive after the sidecar took the order for refused.

use super::{Handler, Manners, at_handler, on_files, pay, record, reload, stands};
use crate::support::sidecar::{Encoding, MERCHANT, Payout, Sidecar, To, Upstream, embedded};
use test_support::until;

/// A refused order is repeated after the limit for one payout was lowered below its amount.
#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_binds_the_repeat_of_a_refused_order() {
    let upstream = Upstream::start(To::Redpack).await;
    upstream.fake.set_faults("pay=error:NOTENOUGH*1".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let rest = format!("{}{}", embedded(&dir), upstream.configuration());
    let at_most = |fen: u32| format!("[limits]\nmax_amount = {fen}\n{rest}");
    let sidecar = Sidecar::start_in(dir, &at_most(200), &[]).await;
    let payout = Payout {
        amount: "150".into(),
        ..Payout::new("L1")
    };
    assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "NOTENOUGH");
    reload(&sidecar, &at_most(149)).await;
    let repeat = sidecar.pay(Encoding::Json, &payout).await;
    assert_eq!(repeat.code(), "AMOUNT_LIMIT", "{}", repeat.body);
    assert_eq!(upstream.times_sent("L1"), 1, "nothing was sent");
    assert_eq!(record(&sidecar, "L1").await["state"], "refused");
    reload(&sidecar, &at_most(150)).await;
    assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SUCCESS");
    assert_eq!(upstream.fake.books().times_paid("L1"), 1);
}

/// A handler pays an order that the sidecar took for refused: it counts towards the day's limit after all.
#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_after_a_refusal_is_charged() {
    let handler = Handler::start(Manners::Busy).await;
    let entry = at_handler(
        MERCHANT,
        handler.address,
        "timeout = \"1s\"\nnot_found_after = \"1s\"\n",
    );
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("[limits]\nper_user_per_day = 150\n{}", on_files(&dir, &entry));
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert_eq!(pay(&sidecar, "L1").await, "SYSTEMERROR");
    until("it is taken for refused", async || {
        record(&sidecar, "L1").await["state"] == "refused"
    })
    .await;
    handler.does_late("L1");
    assert_eq!(stands(&sidecar, "L1").await, "SENT");
    assert_eq!(record(&sidecar, "L1").await["state"], "succeeded");
    handler.set(Manners::Prompt);
    assert_eq!(
        pay(&sidecar, "L2").await,
        "AMOUNT_LIMIT",
        "100 of 150 fen are paid, and 100 more are too many"
    );
    assert_eq!((handler.paid("L1"), handler.taken("L2")), (1, 0));
}
