//! Status calls while the sidecar cannot know the answer.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{pay, record, stands};
use crate::support::sidecar::{APP, OPENID, Sidecar, To, Upstream, embedded, in_redis};
use test_support::redis::Redis;
use test_support::until;

/// A transfer failed and its repeat was paid. Afterwards the upstream answers no query.
#[tokio::test(flavor = "multi_thread")]
async fn a_paid_transfer_is_not_called_failed_by_the_word_on_an_attempt_before() {
    let upstream = Upstream::start(To::Transfer).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    upstream
        .fake
        .set_faults("pay=error-after:SYSTEMERROR*1".parse().unwrap());
    upstream.fake.set_status("T1", "FAILED");
    assert_eq!(pay(&sidecar, "T1").await, "SYSTEMERROR");
    assert_eq!(stands(&sidecar, "T1").await, "FAILED");
    upstream.fake.set_status("T1", "SUCCESS");
    assert_eq!(pay(&sidecar, "T1").await, "SUCCESS");
    assert_eq!(upstream.times_sent("T1"), 2);
    for silence in ["query=status:502", "query=reset-before", "query=garbage"] {
        upstream.fake.set_faults(silence.parse().unwrap());
        assert_eq!(stands(&sidecar, "T1").await, "SUCCESS", "{silence}");
    }
    // A late answer about the failed attempt does not change the status either.
    upstream.fake.set_faults("".parse().unwrap());
    upstream.fake.set_status("T1", "FAILED");
    assert_eq!(stands(&sidecar, "T1").await, "SUCCESS");
}

/// Redis goes away while the sidecar sends an order. The record cannot be read, which is not "no such order".
#[tokio::test(flavor = "multi_thread")]
async fn an_order_on_its_way_is_not_called_unknown_while_the_ledger_is_away() {
    let mut redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Redpack).await;
    upstream.fake.set_faults("pay=hang-before".parse().unwrap());
    let configuration = format!("{}{}", in_redis(&redis.url()), upstream.configuration());
    let sidecar = Sidecar::start(&configuration).await;
    let elsewhere = Sidecar::start(&configuration).await;

    let caller = pay(&sidecar, "S1");
    let meanwhile = async {
        until("it is being sent", async || upstream.times_sent("S1") == 1).await;
        redis.kill();
        for replica in [&sidecar, &elsewhere] {
            let told = stands(replica, "S1").await;
            assert!(["PROCESSING", "SYSTEMERROR"].contains(&told.as_str()), "{told}");
        }
    };
    let (told, ()) = tokio::join!(caller, meanwhile);
    assert_eq!(told, "SYSTEMERROR");
    for replica in [&sidecar, &elsewhere] {
        assert_eq!(
            stands(replica, "S1").await,
            "SYSTEMERROR",
            "its outcome is not on record"
        );
    }
    redis.restart();
    upstream.fake.set_faults("".parse().unwrap());
    until("it is paid by a repeat", async || {
        let told = (stands(&sidecar, "S1").await, pay(&sidecar, "S1").await);
        assert!(
            ["PROCESSING", "SYSTEMERROR", "SENT"].contains(&told.0.as_str()),
            "{told:?}"
        );
        told.1 == "SUCCESS"
    })
    .await;
    until("the other replica has Redis back", async || {
        record(&elsewhere, "S1").await["state"] == "succeeded"
    })
    .await;
    assert_eq!(upstream.fake.books().times_paid("S1"), 1);
}

/// A proxy between a sidecar and Redis. It holds back a command with these bytes, and everything after it.
struct Slow {
    address: SocketAddr,
    holds: watch::Sender<bool>,
    has_begun: watch::Receiver<bool>,
    serving: JoinHandle<()>,
}

impl Slow {
    async fn before(redis: &Redis, bytes: &'static [u8]) -> Self {
        let behind = SocketAddr::from(([127, 0, 0, 1], redis.port));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (holds, held) = watch::channel(true);
        let (begin, has_begun) = watch::channel(false);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (caller, _) = listener.accept().await.unwrap();
                let (mut held, begin) = (held.clone(), begin.clone());
                connections.spawn(async move {
                    let behind = TcpStream::connect(behind).await.unwrap();
                    let (mut from_caller, mut to_caller) = caller.into_split();
                    let (mut from_behind, mut to_behind) = behind.into_split();
                    let back = tokio::io::copy(&mut from_behind, &mut to_caller);
                    let forth = async {
                        let mut chunk = vec![0; 16 << 10];
                        loop {
                            let length = from_caller.read(&mut chunk).await.unwrap_or_default();
                            if length == 0 {
                                return;
                            }
                            if chunk[..length].windows(bytes.len()).any(|part| part == bytes) {
                                begin.send_replace(true);
                                held.wait_for(|holds| !holds).await.unwrap();
                            }
                            let _sent = to_behind.write_all(&chunk[..length]).await;
                        }
                    };
                    tokio::select! {
                        _ = back => {}
                        () = forth => {}
                    }
                });
            }
        });
        Self {
            address,
            holds,
            has_begun,
            serving,
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The identity store is slow: the order is in progress and not yet recorded.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_on_its_way_is_not_called_unknown_before_its_claim() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let mut slow = Slow::before(&redis, b"user-1").await;
    let upstream = Upstream::start(To::Redpack).await;
    let through = format!("redis://{}/0", slow.address);
    let stores = in_redis(&redis.url()).replacen(&redis.url(), &through, 1);
    let sidecar = Sidecar::start(&format!("{stores}{}", upstream.configuration())).await;

    let caller = pay(&sidecar, "S1");
    let meanwhile = async {
        slow.has_begun.wait_for(|begun| *begun).await.unwrap();
        assert_eq!(stands(&sidecar, "S1").await, "PROCESSING");
        slow.holds.send_replace(false);
    };
    let (told, ()) = tokio::join!(caller, meanwhile);
    assert_eq!(told, "SUCCESS");
    assert_eq!(stands(&sidecar, "S1").await, "SENT");
    assert_eq!(
        stands(&sidecar, "S2").await,
        "NOT_FOUND",
        "nobody has sent this one"
    );
}
