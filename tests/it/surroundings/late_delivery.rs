//! Requests that are delivered or processed long after their timeout, while the upstream has answered "no such order".

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::network::Host;
use super::{CLIENT_IP, Handler, Manners, at_handler, on_files, pay, record, stands};
use crate::support::sidecar::{APP, MERCHANT, OPENID, Sidecar, in_redis};
use test_support::redis::Redis;
use test_support::until;

/// Packets to a handler are lost from before the requests are written until long after their timeout.
#[tokio::test(flavor = "multi_thread")]
async fn what_packet_loss_held_up_is_not_delivered_after_it_was_given_up() {
    let host = Host::start().await;
    let entry = at_handler(
        MERCHANT,
        host.address,
        "timeout = \"2s\"\nnot_found_after = \"4s\"\n",
    );
    let dir = tempfile::tempdir().unwrap();
    let configuration = on_files(&dir, &entry);
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    // Opens connections that stay open: the sidecar can write on them without an answer from the host.
    let orders = |tag: &str| -> Vec<String> { (0..6).map(|n| format!("{tag}{n}")).collect() };
    host.set_faults("send/WARM=delay:300ms").await;
    for told in join_all(orders("WARM").iter().map(|order_no| pay(&sidecar, order_no))).await {
        assert_eq!(told, "SUCCESS");
    }

    host.cut();
    let begun = Instant::now();
    let lost = orders("LOST");
    for told in join_all(lost.iter().map(|order_no| pay(&sidecar, order_no))).await {
        assert_eq!(told, "SYSTEMERROR");
    }
    // Later than the timeout and `not_found_after`, counted from the attempt. The kernel retransmits 0.2, 0.6, 1.4, 3,
    // 6.2 and 12.6 s after the first try: until the next one in some seconds, the handler answers everything else.
    tokio::time::sleep(Duration::from_millis(7_500).saturating_sub(begun.elapsed())).await;
    host.restore();
    for order_no in &lost {
        until("it is paid, once", async || {
            let told = pay(&sidecar, order_no).await;
            assert!(
                ["SYSTEMERROR", "PROCESSING", "SUCCESS"].contains(&told.as_str()),
                "{told}"
            );
            told == "SUCCESS"
        })
        .await;
    }
    until("the kernel has nothing left of it", async || {
        host.still_to_be_delivered() == 0
    })
    .await;
    for order_no in &lost {
        assert_eq!(
            host.books(order_no).await,
            (1, 1),
            "{order_no} was asked for, and paid"
        );
        assert_eq!(stands(&sidecar, order_no).await, "SENT");
    }
}

/// A handler stalls, and later processes requests it had already received before it reports them.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_stood_still_is_not_believed_too_early() {
    let handler = Handler::start(Manners::Busy).await;
    let entry = at_handler(
        MERCHANT,
        handler.address,
        "timeout = \"1s\"\nnot_found_after = \"8s\"\n",
    );
    let dir = tempfile::tempdir().unwrap();
    let configuration = on_files(&dir, &entry);
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    // The handler receives the first order before it stalls, and answers that it does not know it. It receives the
    // second one while it stalls.
    assert_eq!(pay(&sidecar, "BEFORE").await, "SYSTEMERROR");
    assert_eq!(
        (pay(&sidecar, "BEFORE").await.as_str(), handler.told("BEFORE") > 0),
        ("SYSTEMERROR", true)
    );
    handler.set(Manners::Still);
    let begun = Instant::now();
    assert_eq!(pay(&sidecar, "WHILE").await, "SYSTEMERROR");
    // Longer than `not_found_after`, but the handler answers nothing in that time.
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed())).await;
    let orders = ["BEFORE", "WHILE"];
    for order_no in orders {
        assert_eq!(pay(&sidecar, order_no).await, "SYSTEMERROR");
    }

    handler.set(Manners::Busy);
    for order_no in orders {
        let told = handler.told(order_no);
        until("it has said again that it knows no such order", async || {
            let (repeat, status) = (pay(&sidecar, order_no).await, stands(&sidecar, order_no).await);
            let taken = handler.taken(order_no);
            assert_eq!(
                (repeat.as_str(), status.as_str(), taken),
                ("SYSTEMERROR", "SYSTEMERROR", 1),
                "{order_no}"
            );
            handler.told(order_no) >= told + 4
        })
        .await;
    }
    for order_no in orders {
        handler.does_late(order_no);
        assert_eq!(pay(&sidecar, order_no).await, "SUCCESS");
        assert_eq!(
            (handler.taken(order_no), handler.paid(order_no)),
            (1, 1),
            "{order_no}"
        );
    }
}

/// A stalled replica resumes without an answer, after another replica has taken the order for refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_ends_without_an_answer_raises_a_doubt_about_what_was_refused_meanwhile() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let handler = Handler::start(Manners::Busy).await;
    let entry = at_handler(
        MERCHANT,
        handler.address,
        "timeout = \"1s\"\nnot_found_after = \"8s\"\n",
    );
    // The caller waits as long as the replica stalls.
    let timeout = "[server]\nrequest_timeout = \"120s\"\n";
    let configuration = format!("{timeout}{}{CLIENT_IP}{entry}", in_redis(&redis.url()));
    let stopped = Sidecar::start(&configuration).await;
    let other = Sidecar::start(&configuration).await;

    let caller = pay(&stopped, "HELD");
    let meanwhile = async {
        until("the handler has it", async || handler.taken("HELD") == 1).await;
        stopped.signal("STOP");
        until("the other replica takes it for refused", async || {
            record(&other, "HELD").await["state"] == "refused"
        })
        .await;
        stopped.signal("CONT");
    };
    let (told, ()) = tokio::join!(caller, meanwhile);
    assert_eq!(told, "SYSTEMERROR", "it is not known whether the handler does it");
    assert_eq!(handler.taken("HELD"), 1);
    for replica in [&stopped, &other] {
        assert_eq!(stands(replica, "HELD").await, "SYSTEMERROR");
    }
    handler.does_late("HELD");
    until("it is settled", async || {
        record(&other, "HELD").await["state"] == "succeeded"
    })
    .await;
    for replica in [&stopped, &other] {
        assert_eq!(pay(replica, "HELD").await, "SUCCESS");
    }
    assert_eq!((handler.taken("HELD"), handler.paid("HELD")), (1, 1));
}
