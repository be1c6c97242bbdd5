//! The link to Redis: which commands it sends once, when it is certain that nothing was sent, and how it finds the
//! master again.

use std::time::Duration;

use payout_sidecar::redis::{LinkError, Options, RedisLink, RedisUrl, Replicas};
use redis::{FromRedisValue as _, Script, Value, cmd};
use tokio::net::TcpListener;

use test_support::redis::{Cluster, Redis, Sentinels, sentinel};
use test_support::{free_port, until};

/// A link that waits 300 ms for an answer, to keep tests short.
fn link(url: &str) -> RedisLink {
    let options = Options {
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_millis(300),
        ca_pem: None,
    };
    RedisLink::new(RedisUrl::parse(url).unwrap(), options)
}

async fn count_up(link: &RedisLink, key: &str) -> Result<i64, LinkError> {
    link.query(cmd("INCR").arg(key)).await
}

/// Waits until `INCR` succeeds again, and returns its value.
async fn count_up_again(link: &RedisLink, key: &str) -> i64 {
    let mut counted = 0;
    until("the link works again", async || match count_up(link, key).await {
        Ok(count) => {
            counted = count;
            true
        }
        Err(_) => false,
    })
    .await;
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_nothing_was_sent() {
    let link = link(&format!("redis://:s3cret@127.0.0.1:{}", free_port()));
    for _ in 0..3 {
        let error = count_up(&link, "n").await.unwrap_err();
        assert!(matches!(error, LinkError::NotSent(_)), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_of_a_silent_server_share_one_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link(&format!(
        "redis://127.0.0.1:{}",
        listener.local_addr().unwrap().port()
    ));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { count_up(&link, "n").await })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert!(matches!(error, LinkError::NotSent(_)), "{error}");
    }
    let mut tries = 0;
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await {
        tries += 1;
    }
    assert_eq!(tries, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_an_answer_is_unsure_and_was_sent_once() {
    let redis = Redis::start();
    let link = link(&redis.url());
    assert_eq!(count_up(&link, "n").await.unwrap(), 1);
    redis.signal("STOP");
    let error = count_up(&link, "n").await.unwrap_err();
    assert!(error.is_unsure(), "{error}");
    redis.signal("CONT");
    assert_eq!(count_up_again(&link, "n").await, 3, "it took effect, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_lost_while_nobody_used_it_fails_no_command() {
    let mut redis = Redis::start();
    let link = link(&redis.url());
    for round in 1..4 {
        assert_eq!(count_up(&link, "n").await.unwrap(), round);
        redis.kill();
        redis.restart();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_leave_the_link_whole() {
    let redis = Redis::start();
    let link = link(&redis.url());
    redis.signal("STOP");
    // Cancels calls while the link connects, and while it waits for answers.
    for _ in 0..20 {
        let _gone = tokio::time::timeout(Duration::from_millis(5), count_up(&link, "n")).await;
    }
    redis.signal("CONT");
    count_up_again(&link, "n").await;
    for n in 0..100 {
        let key = format!("k{n}");
        let mut caller = Box::pin(count_up(&link, &key));
        let _begun = futures_util::poll!(&mut caller);
        drop(caller);
    }
    assert_eq!(count_up(&link, "other").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_by_its_code_and_took_no_effect() {
    let redis = Redis::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"], None);
    let link = link(&redis.url());
    let code = |error: LinkError| match error {
        LinkError::Refused { code, .. } => code,
        other => panic!("{other}"),
    };
    assert_eq!(code(count_up(&link, "n").await.unwrap_err()), "OOM");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    link.query::<()>(cmd("SET").arg("text").arg("x")).await.unwrap();
    assert_eq!(
        code(
            link.query::<()>(cmd("LPUSH").arg("text").arg("x"))
                .await
                .unwrap_err()
        ),
        "WRONGTYPE"
    );
    redis.cli(&["ACL", "SETUSER", "default", "-incr"]);
    assert_eq!(code(count_up(&link, "n").await.unwrap_err()), "NOPERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_costs_one_round_trip_and_is_loaded_where_it_is_unknown() {
    let redis = Redis::start();
    let link = link(&redis.url());
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let run = async || {
        link.script::<i64, _, _>(&script, &["n"], &["2"], None)
            .await
            .unwrap()
    };
    assert_eq!(run().await, 2);
    redis.cli(&["CONFIG", "RESETSTAT"]);
    assert_eq!((run().await, run().await), (4, 6));
    assert_eq!(
        (
            redis.calls("evalsha"),
            redis.calls("eval"),
            redis.calls("script|load")
        ),
        (2, 0, 0)
    );
    redis.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(run().await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_waits_for_replicas_holds_nobody_up() {
    let master = Redis::start();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &master.port.to_string()], None);
    until("the replica follows", async || {
        replica.info("replication", "master_link_status") == "up"
    })
    .await;
    let options = Options {
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(10),
        ca_pem: None,
    };
    let link = RedisLink::new(RedisUrl::parse(&master.url()).unwrap(), options);
    let replicas = |seconds| Replicas {
        count: 1,
        timeout: Duration::from_secs(seconds),
        has_written: |_: &Value| true,
    };
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    let claim = async |seconds| {
        link.script::<i64, _, &str>(&script, &["n"], &[], Some(replicas(seconds)))
            .await
    };
    assert_eq!(claim(5).await.unwrap(), 1);
    replica.signal("STOP");
    let waiting = claim(5);
    tokio::pin!(waiting);
    let others = async {
        until("the script waits", async || {
            master.info("clients", "blocked_clients") == "1"
        })
        .await;
        for n in 1..=100 {
            assert_eq!(count_up(&link, "other").await.unwrap(), n);
        }
    };
    tokio::select! {
        biased;
        done = &mut waiting => panic!("{done:?} before the others were served"),
        () = others => {}
    }
    let error = waiting.await.unwrap_err();
    assert!(
        error.is_unsure(),
        "it is written, but not where it must be: {error}"
    );
    replica.signal("CONT");
    assert_eq!(claim(5).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fail_over_the_sentinels_are_asked_again() {
    let mut sentinels = Sentinels::start();
    let link = link(&sentinels.url());
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    assert_eq!(
        link.script::<i64, _, &str>(&script, &["n"], &[], None)
            .await
            .unwrap(),
        1
    );
    until("replicated", async || {
        sentinels.servers[1].cli(&["GET", "n"]) == "1"
    })
    .await;
    sentinels.fail_over();
    until("the new master is written to", async || {
        link.script::<i64, _, &str>(&script, &["n"], &[], None)
            .await
            .is_ok()
    })
    .await;
    assert_eq!(sentinels.servers[1].cli(&["GET", "n"]), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_master_is_left_for_the_present_one() {
    let redis = Redis::start();
    let other = Redis::start();
    let link = link(&redis.url());
    count_up(&link, "n").await.unwrap();
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    match count_up(&link, "n").await.unwrap_err() {
        LinkError::Refused { code, .. } => assert_eq!(code, "READONLY"),
        error => panic!("{error}"),
    }
    let before: u64 = redis.info("stats", "total_connections_received").parse().unwrap();
    assert!(count_up(&link, "n").await.is_err());
    let after: u64 = redis.info("stats", "total_connections_received").parse().unwrap();
    // The second read of the statistics is itself a connection.
    assert_eq!(after - before, 2, "it was connected to anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_that_ask_for_a_password_are_told_it() {
    let master = Redis::start_with(&["--requirepass", "s3cret"], Some("s3cret"));
    let guarded = sentinel(master.port, 1, Some("s3cret"));
    let to = |password: &str| {
        link(&format!(
            "redis+sentinel://:{password}@127.0.0.1:{}/shop/2",
            guarded.port
        ))
    };
    assert_eq!(count_up(&to("s3cret"), "n").await.unwrap(), 1);
    assert_eq!(
        master.cli(&["-n", "2", "GET", "n"]),
        "1",
        "in the database that was named"
    );
    let error = count_up(&to("wr0ng"), "n").await.unwrap_err();
    assert!(
        matches!(&error, LinkError::NotSent(why) if why.contains("WRONGPASS")),
        "{error}"
    );
    assert!(!error.to_string().contains("wr0ng"), "{error}");
}

/// Sends five `INCR` in one batch: each must count once, in whatever order redirects bring them.
async fn count_up_at_once(link: &RedisLink, key: &str) {
    let answers = link.all(vec![redis::Cmd::incr(key, 1); 5]).await.unwrap();
    let mut each: Vec<i64> = answers
        .into_iter()
        .map(|answer| i64::from_redis_value(answer.unwrap()).unwrap())
        .collect();
    each.sort_unstable();
    let first = each[0];
    assert_eq!(each, (first..first + 5).collect::<Vec<_>>());
}

/// The slot of a key, the node that serves it, and another node.
fn home_and_other<'a>(cluster: &'a Cluster, key: &str) -> (String, &'a Redis, &'a Redis) {
    let slot = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]);
    let home = cluster
        .nodes
        .iter()
        .position(|node| !node.cli(&["GET", key]).starts_with("MOVED"))
        .unwrap();
    (slot, &cluster.nodes[home], &cluster.nodes[(home + 1) % 3])
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_slot_on_the_move_is_followed() {
    let cluster = Cluster::start();
    let link = link(&cluster.url());
    let (slot, home, other) = home_and_other(&cluster, "n");
    link.ready().await.unwrap();
    let (home_id, other_id) = (home.cli(&["CLUSTER", "MYID"]), other.cli(&["CLUSTER", "MYID"]));
    assert_eq!(
        other.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &home_id]),
        "OK"
    );
    assert_eq!(
        home.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &other_id]),
        "OK"
    );
    // The old node answers ASK, since it no longer has the key.
    for n in 1..=20 {
        assert_eq!(count_up(&link, "n").await.unwrap(), n);
    }
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    assert_eq!(
        link.script::<i64, _, &str>(&script, &["n"], &[], None)
            .await
            .unwrap(),
        21
    );
    count_up_at_once(&link, "n").await;
    for node in [other, home] {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &other_id]), "OK");
    }
    // The old node answers MOVED.
    count_up_at_once(&link, "n").await;
    assert_eq!(count_up(&link, "n").await.unwrap(), 32);
    assert_eq!(
        link.script::<i64, _, &str>(&script, &["n"], &[], None)
            .await
            .unwrap(),
        33
    );
    assert_eq!(other.cli(&["GET", "n"]), "33");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_command_without_an_answer_was_sent_once() {
    let cluster = Cluster::start();
    let link = link(&cluster.url());
    let (_, home, _) = home_and_other(&cluster, "n");
    let elsewhere = (0..)
        .map(|n| format!("k{n}"))
        .find(|key| home.cli(&["GET", key]).starts_with("MOVED"))
        .unwrap();
    assert_eq!(count_up(&link, "n").await.unwrap(), 1);
    home.signal("STOP");
    // Traffic to the other nodes keeps a Cluster client awake, and could make it repeat the command.
    let traffic = async {
        loop {
            let _counted = count_up(&link, &elsewhere).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let error = tokio::select! {
        counted = count_up(&link, "n") => counted.unwrap_err(),
        () = traffic => unreachable!(),
    };
    assert!(error.is_unsure(), "{error}");
    home.signal("CONT");
    assert_eq!(count_up_again(&link, "n").await, 3, "it took effect, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_master_that_is_down_stops_its_own_keys_only() {
    let mut cluster = Cluster::start();
    for node in &cluster.nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let link = link(&cluster.url());
    let keys: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    for key in &keys {
        assert_eq!(count_up(&link, key).await.unwrap(), 1);
    }
    let lost: Vec<&String> = keys
        .iter()
        .filter(|key| !cluster.nodes[2].cli(&["GET", key]).starts_with("MOVED"))
        .collect();
    assert!(!lost.is_empty() && lost.len() < keys.len());
    let lost: Vec<String> = lost.into_iter().cloned().collect();
    cluster.nodes[2].kill();
    until("the others go on", async || {
        link.ready().await.is_ok()
            && count_up(&link, keys.iter().find(|key| !lost.contains(key)).unwrap())
                .await
                .is_ok()
    })
    .await;
    for key in &keys {
        let counted = count_up(&link, key).await;
        assert_eq!(counted.is_err(), lost.contains(key), "{key}: {counted:?}");
    }
    cluster.nodes[2].restart();
    for key in &lost {
        // Redis syncs the file once a second, so the first increment may be lost. None may count twice.
        assert!(count_up_again(&link, key).await <= 2, "{key}");
    }
}
