//! Orders whose merchant leads elsewhere after a reload: the sidecar sends, queries and settles them where it sent them
//! first.

use std::time::Duration;

use fake_wechat::{FakeWechat, Faults, HandlerKind, Options};

use super::{another_address_of, at_handler, metric, on_files, pay, record, reload, stands};
use crate::support::sidecar::{MERCHANT, Sidecar, To, Upstream, embedded};
use test_support::until;

const STRANDED: &str = "payout_attention_orders{reason=\"no_destination\"}";

fn faults(spec: &str) -> Faults {
    spec.parse().unwrap()
}

async fn handler(kind: HandlerKind) -> FakeWechat {
    let options = Options {
        handler: kind,
        tls_listen: None,
        ..Options::loopback()
    };
    FakeWechat::start(options).await.unwrap()
}

/// Two independent handlers. The first one pays without answering, and answers no queries.
struct Two {
    first: FakeWechat,
    second: FakeWechat,
    /// Settings that the entries of both have in common.
    manners: String,
}

impl Two {
    async fn start(idempotent: bool) -> Self {
        let kind = if idempotent {
            HandlerKind::Idempotent
        } else {
            HandlerKind::PaysEachCall
        };
        let first = handler(kind).await;
        first.set_faults(faults("pay=reset-after;query=status:502"));
        Self {
            first,
            second: handler(kind).await,
            manners: format!("idempotent = {idempotent}\ntimeout = \"1s\"\nnot_found_after = \"1s\"\n"),
        }
    }

    fn at_first(&self, mch_id: &str) -> String {
        at_handler(mch_id, self.first.addr(), &self.manners)
    }

    fn at_second(&self, mch_id: &str) -> String {
        at_handler(mch_id, self.second.addr(), &self.manners)
    }

    /// Sends an order that the first handler pays; the caller and the ledger do not learn of the payment.
    async fn leave_unknown(&self, entries: &str, order_no: &str) -> Sidecar {
        let dir = tempfile::tempdir().unwrap();
        let configuration = on_files(&dir, entries);
        let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
        assert_eq!(pay(&sidecar, order_no).await, "SYSTEMERROR");
        assert_eq!(self.first.books().times_paid(order_no), 1);
        sidecar
    }

    fn times_paid(&self, order_no: &str) -> usize {
        self.first.books().times_paid(order_no) + self.second.books().times_paid(order_no)
    }
}

/// Waits for the operator's alert about an order, and only then repeats it: the settler skips an order that a request
/// is using, and its look raises the alert.
async fn is_left_alone(sidecar: &Sidecar, order_no: &str, mut is_paid_once: impl FnMut() -> bool) {
    let called = until("a person is called", async || {
        metric(sidecar, STRANDED).await == 1
            && sidecar
                .log()
                .contains("no merchant entry leads to where this order was sent")
    });
    let called = tokio::time::timeout(Duration::from_secs(45), called).await;
    for _ in 0..3 {
        let told = (pay(sidecar, order_no).await, stands(sidecar, order_no).await);
        assert!(is_paid_once(), "{order_no} is paid twice; told {told:?}");
        assert_eq!(told, ("SYSTEMERROR".to_owned(), "SYSTEMERROR".to_owned()));
    }
    assert_eq!(called, Ok(()), "nobody is called");
    assert_eq!(record(sidecar, order_no).await["state"], "unknown");
}

/// Checks what a reload logs about the orders it strands.
async fn named_by_the_reload(sidecar: &Sidecar, sent_to: &str) {
    let log = sidecar.logged("leads nowhere for unsettled orders").await;
    let line = log
        .lines()
        .find(|line| line.contains("leads nowhere for unsettled orders"))
        .unwrap();
    for what in [MERCHANT, sent_to, "\"orders\":1"] {
        assert!(line.contains(what), "{what}: {line}");
    }
}

/// A reload moves a merchant to another handler, which knows nothing of an order that the first one may have paid.
#[tokio::test(flavor = "multi_thread")]
async fn another_handler_is_not_asked_about_an_order_of_the_one_before() {
    let with = async |idempotent| {
        let two = Two::start(idempotent).await;
        let sidecar = two.leave_unknown(&two.at_first(MERCHANT), "M1").await;
        reload(&sidecar, &on_files(&sidecar.dir, &two.at_second(MERCHANT))).await;
        is_left_alone(&sidecar, "M1", || two.times_paid("M1") == 1).await;
        named_by_the_reload(&sidecar, &format!("http://{}", two.first.addr())).await;
        assert_eq!(two.second.books().requests(), [], "idempotent = {idempotent}");
        assert_eq!(pay(&sidecar, "M2").await, "SUCCESS", "new orders go on");
        assert_eq!(two.second.books().times_paid("M2"), 1);

        // A reload returns to the first handler, under another address.
        two.first.set_faults(Faults::default());
        let (address, _passing_on) = another_address_of(two.first.addr()).await;
        let formerly = format!("formerly = [\"http://{}\"]\n{}", two.first.addr(), two.manners);
        reload(
            &sidecar,
            &on_files(&sidecar.dir, &at_handler(MERCHANT, address, &formerly)),
        )
        .await;
        assert_eq!(pay(&sidecar, "M1").await, "SUCCESS");
        assert_eq!(stands(&sidecar, "M1").await, "SENT");
        assert_eq!(two.times_paid("M1"), 1);
        until("nobody is called any more", async || {
            metric(&sidecar, STRANDED).await == 0
        })
        .await;
    };
    tokio::join!(with(false), with(true));
}

/// The same, but the first handler's entry stays beside the new one for its old orders.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_for_old_orders_only_settles_them_where_they_were_sent() {
    let with = async |idempotent| {
        let two = Two::start(idempotent).await;
        let sidecar = two.leave_unknown(&two.at_first(MERCHANT), "M1").await;
        let both = format!(
            "{}settle_only = true\n{}",
            two.at_first(MERCHANT),
            two.at_second(MERCHANT)
        );
        reload(&sidecar, &on_files(&sidecar.dir, &both)).await;
        assert_eq!(
            pay(&sidecar, "M1").await,
            "SYSTEMERROR",
            "asked, and not answered"
        );
        two.first.set_faults(Faults::default());
        // No caller repeats the order.
        until("it is settled", async || {
            record(&sidecar, "M1").await["state"] == "succeeded"
        })
        .await;
        assert_eq!(pay(&sidecar, "M1").await, "SUCCESS");
        assert_eq!(two.second.books().requests(), []);
        assert_eq!(pay(&sidecar, "M2").await, "SUCCESS");
        assert_eq!(
            (two.times_paid("M1"), two.second.books().times_paid("M2")),
            (1, 1)
        );
        assert!(!sidecar.log().contains("leads nowhere for unsettled orders"));
    };
    tokio::join!(with(false), with(true));
}

/// A more specific entry takes a merchant over from the wildcard entry. Unknown orders stay with the handler that the
/// sidecar sent them to.
#[tokio::test(flavor = "multi_thread")]
async fn a_more_specific_entry_takes_over_new_orders_only() {
    let with = async |idempotent| {
        let two = Two::start(idempotent).await;
        let sidecar = two.leave_unknown(&two.at_first("*"), "M1").await;
        let both = format!("{}{}", two.at_first("*"), two.at_second(MERCHANT));
        reload(&sidecar, &on_files(&sidecar.dir, &both)).await;
        // Long enough to believe "no such order", if the sidecar queried the second handler.
        until("a repeat has asked again and again", async || {
            let told = pay(&sidecar, "M1").await;
            assert_eq!(
                (two.times_paid("M1"), told.as_str()),
                (1, "SYSTEMERROR"),
                "idempotent = {idempotent}"
            );
            record(&sidecar, "M1").await["history"].as_array().unwrap().len() > 1
                && two.first.books().times_asked("status", "M1") >= 8
        })
        .await;
        two.first.set_faults(Faults::default());
        assert_eq!(pay(&sidecar, "M1").await, "SUCCESS");
        assert_eq!(two.second.books().requests(), []);
        assert_eq!(pay(&sidecar, "M2").await, "SUCCESS");
        assert_eq!(
            (two.times_paid("M1"), two.second.books().times_paid("M2")),
            (1, 1)
        );
    };
    tokio::join!(with(false), with(true));
}

/// A merchant changes to another product or kind of upstream, which cannot report the outcome of older orders.
#[tokio::test(flavor = "multi_thread")]
async fn orders_stay_with_the_product_and_the_kind_of_upstream_that_they_went_to() {
    let bill = To::Bill { certificates: false };
    let handler = To::Handler { idempotent: false };
    tokio::join!(
        goes_over(bill, To::Redpack, bill),
        goes_over(handler, handler, To::Redpack)
    );
}

/// `made` is what the fake is prepared for.
async fn goes_over(made: To, from: To, to: To) {
    let mut upstream = Upstream::start(made).await;
    let mut configuration = |to| {
        upstream.to = to;
        upstream.configuration()
    };
    let (before, after) = (configuration(from), configuration(to));
    upstream.to = from;
    let was_asked = |upstream: &Upstream| {
        let others: &[&str] = match to {
            To::Bill { .. } => &["transfer-bills", "query-bill"],
            _ => &["sendredpack", "gethbinfo"],
        };
        let times = others
            .iter()
            .map(|call| upstream.fake.books().times_asked(call, "V1"));
        times.sum::<usize>() > 0
    };
    upstream
        .fake
        .set_faults(faults("pay/V1=reset-after;query/V1=status:502"));
    let dir = tempfile::tempdir().unwrap();
    let stores = embedded(&dir);
    let sidecar = Sidecar::start_in(dir, &format!("{stores}{before}"), &[]).await;
    assert_eq!(pay(&sidecar, "V1").await, "SYSTEMERROR");
    reload(&sidecar, &format!("{stores}{after}")).await;
    is_left_alone(&sidecar, "V1", || upstream.fake.books().times_paid("V1") == 1).await;
    named_by_the_reload(
        &sidecar,
        if made == from {
            "the handler http://"
        } else {
            "WeChat Pay redpack"
        },
    )
    .await;
    assert_eq!(pay(&sidecar, "V2").await, "SUCCESS", "new orders go on");
    assert!(!was_asked(&upstream));

    // Restores the previous entry for its own orders.
    upstream.fake.set_faults(Faults::default());
    let entry = &before[before.find("[[merchant]]").unwrap()..];
    reload(&sidecar, &format!("{stores}{after}{entry}settle_only = true\n")).await;
    until("it is settled", async || {
        record(&sidecar, "V1").await["state"] == "succeeded"
    })
    .await;
    assert_eq!(pay(&sidecar, "V1").await, "SUCCESS");
    assert_eq!(upstream.fake.books().times_paid("V1"), 1);
    assert!(!was_asked(&upstream));
    until("nobody is called any more", async || {
        metric(&sidecar, STRANDED).await == 0
    })
    .await;
}

/// Removing a merchant's entry changes no recorded order; the sidecar refuses only new orders.
#[tokio::test(flavor = "multi_thread")]
async fn orders_on_record_outlive_their_merchants_entry() {
    let two = Two::start(false).await;
    two.first.set_faults(faults(
        "pay/REF=error:NOTENOUGH;pay/UNK=reset-after;query/UNK=status:502",
    ));
    let dir = tempfile::tempdir().unwrap();
    let configuration = on_files(&dir, &two.at_first(MERCHANT));
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    for (order_no, told) in [("OK1", "SUCCESS"), ("REF1", "NOTENOUGH"), ("UNK1", "SYSTEMERROR")] {
        assert_eq!(pay(&sidecar, order_no).await, told);
    }
    let somebody_elses = two.at_second("1900000999");
    reload(&sidecar, &on_files(&sidecar.dir, &somebody_elses)).await;
    for (order_no, told, status) in [
        ("OK1", "SUCCESS", "SENT"),
        ("REF1", "NOTENOUGH", "FAILED"),
        ("UNK1", "SYSTEMERROR", "SYSTEMERROR"),
        ("NEW1", "NO_AUTH", "NO_AUTH"),
    ] {
        let now = (pay(&sidecar, order_no).await, stands(&sidecar, order_no).await);
        assert_eq!(now, (told.to_owned(), status.to_owned()), "{order_no}");
    }
    assert_eq!(two.second.books().requests(), []);
    assert_eq!(two.first.books().payments().len(), 2, "OK1 and UNK1");
}
