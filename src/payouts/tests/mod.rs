//! The flow against scripted fakes: what it sends, what it records, what it tells callers.

mod simulation;
mod world;

use std::time::Duration;

use super::reply::Reply;
use payout_domain::contract::answer::Disclosure;
use payout_domain::contract::send::{RequestCredentials, SendRequest};
use payout_domain::contract::status::StatusRequest;
use payout_domain::encoding::Encoding;
use payout_domain::ids::{HandlerId, MchId, OrderKey, OrderNo, TradeRecordId, WxAppId};
use payout_domain::order::fixtures::{claimed, request};
use payout_domain::order::{Attention, Destination, State};
use payout_domain::outcome::Class;
use world::{Deed, StoreFault, World, world};

/// The code that a caller gets: `SUCCESS`, or `errCode`.
async fn told(world: &World, request: SendRequest) -> String {
    code(world.payouts.send(request, Encoding::Json, ()).await)
}

/// The same for another order.
async fn told_of(world: &World, changes: &[(&str, &str)], order_no: &str) -> String {
    let reply = world.payouts.send(request(changes), Encoding::Json, ()).await;
    code_of(reply, order_no)
}

/// The status that a status call gets for an order, or its `errCode`.
async fn stands(world: &World, order_no: &str) -> String {
    let question = StatusRequest {
        wx_app_id: WxAppId::parse("wx1").unwrap(),
        key: key(order_no),
        trade_record_id: TradeRecordId(7),
        credentials: RequestCredentials::default(),
    };
    match world.payouts.status(question, Encoding::Json, ()).await {
        Ok(fields) => {
            let told = fields
                .characters("status")
                .or_else(|| fields.characters("errCode"));
            told.unwrap_or_default().to_owned()
        }
        Err(fault) => fault.code.as_str().to_owned(),
    }
}

fn key(order_no: &str) -> OrderKey {
    OrderKey {
        mch_id: MchId::parse("19").unwrap(),
        order_no: OrderNo::parse(order_no).unwrap(),
    }
}

fn code(reply: Reply) -> String {
    code_of(reply, "A1")
}

fn code_of(reply: Reply, order_no: &str) -> String {
    let fields = reply.into_fields(&key(order_no), Disclosure::default());
    assert_eq!(
        fields.characters("mchBillno"),
        Some(order_no),
        "mchBillno is in every answer"
    );
    fields
        .characters("errCode")
        .or_else(|| fields.characters("resultCode"))
        .unwrap_or_default()
        .to_owned()
}

/// The destination of the world's entry.
fn claimed_at_here() -> Destination {
    Destination::Handler(HandlerId::parse("http://here:80").unwrap())
}

fn state(world: &World) -> &'static str {
    world
        .ledger
        .order()
        .map_or("none", |order| order.state.name().as_str())
}

#[tokio::test(start_paused = true)]
async fn a_payout_is_paid_once_and_its_repeat_answered_from_the_record() {
    let world = world(false);
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!(told(&world, request(&[("remark", "another")])).await, "SUCCESS");
    assert_eq!((world.upstream.attempted(), state(&world)), (1, "succeeded"));
}

#[tokio::test(start_paused = true)]
async fn fifty_repeats_at_once_are_sent_once_and_told_the_same() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(3))]);
    let all = (0..50).map(|_| told(&world, request(&[])));
    let answers = futures_util::future::join_all(all).await;
    assert!(answers.iter().all(|answer| answer == "SUCCESS"), "{answers:?}");
    assert_eq!(world.upstream.attempted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_on_another_replica_waits_for_the_first_ones_answer() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(3))]);
    let other = super::Payouts::new(
        world.ledger.clone(),
        world.mapping.clone(),
        std::sync::Arc::clone(&world.payouts.inner.clock),
        std::sync::Arc::new(crate::rng::SystemRng),
        vec![],
        super::Settings {
            merchants: world.payouts.settings().merchants.clone(),
            client_ip: world.payouts.settings().client_ip,
            limits: world.payouts.settings().limits,
            disclosure: Disclosure::default(),
            request_timeout: Duration::from_secs(15),
        },
    );
    let (here, there) = tokio::join!(
        told(&world, request(&[])),
        other.send(request(&[]), Encoding::Json, ())
    );
    assert_eq!((here.as_str(), code(there).as_str()), ("SUCCESS", "SUCCESS"));
    assert_eq!(world.upstream.attempted(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_differs_from_the_first_request_is_refused_and_not_sent() {
    let world = world(true);
    told(&world, request(&[])).await;
    for change in [("amount", "101"), ("openid", "user-2"), ("wxAppId", "wx2")] {
        assert_eq!(
            told(&world, request(&[change])).await,
            "PARAM_ERROR",
            "{change:?}"
        );
    }
    assert_eq!(world.upstream.attempted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_different_request_at_the_same_time_does_not_get_the_others_answer() {
    let world = world(true);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(3))]);
    let both = tokio::join!(
        told(&world, request(&[])),
        told(&world, request(&[("amount", "101")]))
    );
    assert_eq!((both.0.as_str(), both.1.as_str()), ("SUCCESS", "PARAM_ERROR"));
    assert_eq!(world.upstream.paid(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_an_upstream_nothing_is_sent_and_the_number_stays_free() {
    let world = world(false);
    world.upstream.will(&[Deed::IsNotThere]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(state(&world), "none");
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!(world.upstream.paid(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_order_may_be_sent_again_with_the_first_parameters_after_a_second() {
    let world = world(false);
    world.upstream.will(&[Deed::Refuses(Class::Refused), Deed::Pays]);
    assert_eq!(told(&world, request(&[("remark", "first")])).await, "NOTENOUGH");
    let begun = tokio::time::Instant::now();
    *world.mapping.openid.lock().unwrap() = Some(Ok(Some("oAnother")));
    assert_eq!(told(&world, request(&[("remark", "second")])).await, "SUCCESS");
    assert!(
        begun.elapsed() >= Duration::from_millis(990),
        "attempts are a second apart"
    );
    let attempts = world.upstream.attempts.lock().unwrap().clone();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts.first(), attempts.last(), "parameter for parameter");
    assert_eq!(
        world
            .upstream
            .payments
            .lock()
            .unwrap()
            .first()
            .map(|(o, _)| o.clone()),
        Some("oX12abcdefghijk9f".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_spent_number_answers_from_the_record() {
    let world = world(true);
    world.upstream.will(&[Deed::Refuses(Class::NumberSpent)]);
    assert_eq!(told(&world, request(&[])).await, "NOTENOUGH");
    assert_eq!(told(&world, request(&[])).await, "NOTENOUGH");
    assert_eq!(world.upstream.attempted(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_order_is_asked_about_before_anything_else() {
    for refuses_doubles in [true, false] {
        let world = world(refuses_doubles);
        world.upstream.will(&[Deed::PaysAndSaysNothing]);
        assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
        assert_eq!(state(&world), "unknown");
        assert_eq!(told(&world, request(&[])).await, "SUCCESS");
        assert_eq!(
            (
                world.upstream.attempted(),
                *world.upstream.queries.lock().unwrap()
            ),
            (1, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_order_is_sent_again_only_where_doubles_are_refused() {
    let world = world(true);
    world.upstream.will(&[Deed::SaysNothing]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!((world.upstream.attempted(), world.upstream.paid()), (2, 1));

    let world = self::world(false);
    world.upstream.will(&[Deed::PaysAndSaysNothing]);
    *world.upstream.silent_to_queries.lock().unwrap() = true;
    for _ in 0..3 {
        assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    }
    assert_eq!((world.upstream.attempted(), state(&world)), (1, "unknown"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_before_processing_says_nothing_about_the_first_attempt() {
    let world = world(true);
    world
        .upstream
        .will(&[Deed::SaysNothing, Deed::Refuses(Class::RejectedUnprocessed)]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(state(&world), "unknown");
}

/// Runs the settler for this many seconds, with its own pauses.
async fn settle_for(world: &World, seconds: u64) {
    let _over = tokio::time::timeout(
        Duration::from_secs(seconds),
        super::Payouts::settle_until(|| world.payouts.clone(), std::future::pending()),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn absence_that_is_heard_all_along_is_believed_and_then_the_order_is_sent_again() {
    let world = world(false);
    world.upstream.will(&[Deed::SaysNothing]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(
        told(&world, request(&[])).await,
        "SYSTEMERROR",
        "it may still be on its way"
    );
    settle_for(&world, 15).await;
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    settle_for(&world, 10).await;
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!((world.upstream.attempted(), world.upstream.paid()), (2, 1));
}

/// Time that nobody watched does not count: "no such order" comes twice, a minute apart, and the upstream may have
/// stood still in between.
#[tokio::test(start_paused = true)]
async fn absence_that_is_heard_now_and_then_is_not_believed() {
    let world = world(false);
    world.upstream.will(&[Deed::SaysNothing]);
    for _ in 0..5 {
        assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    // Nor does it count with a silence in the middle.
    settle_for(&world, 15).await;
    *world.upstream.silent_to_queries.lock().unwrap() = true;
    settle_for(&world, 3).await;
    *world.upstream.silent_to_queries.lock().unwrap() = false;
    settle_for(&world, 15).await;
    assert_eq!((world.upstream.attempted(), state(&world)), (1, "unknown"));
    settle_for(&world, 1600).await;
    assert_eq!(state(&world), "refused");
}

/// A reload leads the merchant to another handler. The sidecar does not ask about the order there, let alone send it,
/// whatever that handler promises. The order goes on where it was as soon as an entry leads there again.
#[tokio::test(start_paused = true)]
async fn an_order_stays_where_it_was_sent() {
    for refuses_doubles in [false, true] {
        let mut world = world(refuses_doubles);
        let elsewhere = std::sync::Arc::new(world::Upstairs {
            refuses_doubles,
            ..Default::default()
        });
        world.upstream.will(&[Deed::PaysAndSaysNothing]);
        *world.upstream.silent_to_queries.lock().unwrap() = true;
        assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");

        let before = world.payouts.settings();
        let policy = before.merchants.first().unwrap().1.policy;
        let moved = world::handler_entry("http://there:80", elsewhere.clone(), policy);
        world.apply(vec![moved]);
        assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
        settle_for(&world, 300).await;
        assert_eq!(
            (
                state(&world),
                elsewhere.attempted(),
                *elsewhere.queries.lock().unwrap()
            ),
            ("unknown", 0, 0)
        );
        let order = world.ledger.order().unwrap();
        assert_eq!(
            world
                .payouts
                .settings()
                .needs_a_person(&order, world.payouts.now()),
            Some(Attention::NoDestination)
        );
        // Another order goes to the new one.
        assert_eq!(told_of(&world, &[("mchBillno", "B1")], "B1").await, "SUCCESS");
        assert_eq!(elsewhere.paid(), 1);

        *world.upstream.silent_to_queries.lock().unwrap() = false;
        let here = std::sync::Arc::clone(&world.upstream) as std::sync::Arc<dyn super::ports::Upstream>;
        let mut kept = world::handler_entry("http://here:80", std::sync::Arc::clone(&here), policy);
        kept.is_settle_only = true;
        let renamed = || {
            let mut entry = world::handler_entry("http://new-name:80", std::sync::Arc::clone(&here), policy);
            if let payout_domain::merchant::MerchantKind::Handler { formerly, .. } = &mut entry.kind {
                formerly.push(HandlerId::parse("http://here:80").unwrap());
            }
            entry
        };
        let there = world::handler_entry("http://there:80", elsewhere.clone(), policy);
        for entries in [vec![there, kept], vec![renamed()]] {
            world.apply(entries);
            settle_for(&world, 1300).await;
            assert_eq!(told(&world, request(&[])).await, "SUCCESS");
        }
        assert_eq!((world.upstream.paid(), elsewhere.paid()), (1, 1));
    }
}

/// A `settle_only` entry sends nothing, not even a refused or an unknown order of its own.
#[tokio::test(start_paused = true)]
async fn an_entry_for_old_orders_sends_nothing() {
    let mut world = world(true);
    world.upstream.will(&[Deed::Refuses(Class::Refused)]);
    assert_eq!(told(&world, request(&[])).await, "NOTENOUGH");
    world.upstream.will(&[Deed::SaysNothing]);
    assert_eq!(told_of(&world, &[("mchBillno", "B1")], "B1").await, "SYSTEMERROR");
    let policy = world.payouts.settings().merchants.first().unwrap().1.policy;
    let upstream = std::sync::Arc::clone(&world.upstream) as _;
    let mut kept = world::handler_entry("http://here:80", upstream, policy);
    kept.is_settle_only = true;
    world.apply(vec![kept]);
    assert_eq!(told(&world, request(&[])).await, "NOTENOUGH");
    assert_eq!(told_of(&world, &[("mchBillno", "B1")], "B1").await, "SYSTEMERROR");
    assert_eq!(told_of(&world, &[("mchBillno", "C1")], "C1").await, "NO_AUTH");
    assert_eq!(world.upstream.attempted(), 2);
}

/// What was paid stays paid after the configuration drops the merchant.
#[tokio::test(start_paused = true)]
async fn a_known_order_is_answered_whatever_is_configured_now() {
    let mut world = world(true);
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    world.apply(vec![]);
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!(stands(&world, "A1").await, "SENT");
    assert_eq!(told_of(&world, &[("mchBillno", "B1")], "B1").await, "NO_AUTH");
    world.ledger.lose();
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(stands(&world, "A1").await, "SYSTEMERROR");
}

/// Callers hear only `SYSTEMERROR` about a ledger that has forgotten: not `OPENID_ERROR`, not a limit, not
/// `NOT_FOUND`.
#[tokio::test(start_paused = true)]
async fn a_ledger_that_has_forgotten_says_nothing_about_money() {
    let world = world(true);
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    world.ledger.lose();
    *world.mapping.openid.lock().unwrap() = Some(Ok(None));
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    *world.mapping.openid.lock().unwrap() = None;
    assert_eq!(told(&world, request(&[("amount", "20001")])).await, "SYSTEMERROR");
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(stands(&world, "A1").await, "SYSTEMERROR");
    assert_eq!(world.upstream.attempted(), 1);
}

/// The sidecar does not say "there is no such order" while this same process is about to pay it.
#[tokio::test(start_paused = true)]
async fn an_order_on_its_way_is_never_called_unknown_to_anybody() {
    let world = world(false);
    assert_eq!(stands(&world, "A1").await, "NOT_FOUND");
    *world.mapping.takes.lock().unwrap() = Duration::from_secs(5);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(3))]);
    let asked = async {
        for _ in 0..7 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(stands(&world, "A1").await, "PROCESSING");
        }
    };
    let (paid, ()) = tokio::join!(told(&world, request(&[])), asked);
    assert_eq!(paid, "SUCCESS");
    assert_eq!(stands(&world, "A1").await, "SENT");
}

/// `max_amount` binds every claim, also the one that sends a refused order again.
#[tokio::test(start_paused = true)]
async fn a_limit_binds_the_second_claim_too() {
    let mut world = world(false);
    world.upstream.will(&[Deed::Refuses(Class::Refused)]);
    assert_eq!(told(&world, request(&[])).await, "NOTENOUGH");
    let now = world.payouts.settings();
    let limits = payout_domain::limits::Limits {
        max_amount: Some(99),
        ..now.limits
    };
    world.apply_with(now.merchants.clone(), limits);
    assert_eq!(told(&world, request(&[])).await, "AMOUNT_LIMIT");
    assert_eq!(world.upstream.attempted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_too_long_is_told_unknown_and_the_payout_goes_on() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(18))]);
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        told(&world, request(&[])).await
    };
    let both = tokio::join!(told(&world, request(&[])), later);
    assert_eq!((both.0.as_str(), both.1.as_str()), ("SYSTEMERROR", "PROCESSING"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!(world.upstream.attempted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_does_not_stop_the_payout() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(3))]);
    let hung_up = tokio::time::timeout(Duration::from_secs(1), told(&world, request(&[]))).await;
    assert!(hung_up.is_err());
    assert_eq!(state(&world), "pending");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((state(&world), world.upstream.paid()), ("succeeded", 1));
}

#[tokio::test(start_paused = true)]
async fn a_user_without_openid_is_refused_unless_the_order_is_known() {
    let world = world(false);
    *world.mapping.openid.lock().unwrap() = Some(Ok(None));
    assert_eq!(told(&world, request(&[])).await, "OPENID_ERROR");
    assert_eq!((state(&world), world.upstream.attempted()), ("none", 0));
    *world.mapping.openid.lock().unwrap() = None;
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    for gone in [Ok(None), Err(())] {
        *world.mapping.openid.lock().unwrap() = Some(gone);
        assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_identity_store_a_new_order_is_not_sent() {
    let world = world(false);
    *world.mapping.openid.lock().unwrap() = Some(Err(()));
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!((state(&world), world.upstream.attempted()), ("none", 0));
}

#[tokio::test(start_paused = true)]
async fn no_ledger_no_payout() {
    let world = world(false);
    world.ledger.next_writes(&[Some(StoreFault::Refuses)]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(world.upstream.attempted(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_acknowledgement_is_lost_is_written_again_and_paid_once() {
    let world = world(false);
    world
        .ledger
        .next_writes(&[Some(StoreFault::LosesAcknowledgement)]);
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!(world.upstream.attempted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_never_acknowledged_is_not_sent_and_taken_back() {
    let world = world(false);
    let lost = Some(StoreFault::LosesAcknowledgement);
    world.ledger.next_writes(&[lost, lost]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!((state(&world), world.upstream.attempted()), ("pending", 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&world), "none", "it blocks nobody");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_lost_first_and_refused_then_is_taken_back_too() {
    let world = world(false);
    world
        .ledger
        .next_writes(&[Some(StoreFault::LosesAcknowledgement), Some(StoreFault::Refuses)]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!((state(&world), world.upstream.attempted()), ("pending", 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&world), "none");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_recorded_is_told_and_recorded_later() {
    let world = world(false);
    world
        .ledger
        .next_writes(&[None, Some(StoreFault::Refuses), Some(StoreFault::Refuses)]);
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!(state(&world), "pending");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(&world), "succeeded");
}

/// The store loses the record while the payout is under way: the caller must not hear that nothing was sent.
#[tokio::test(start_paused = true)]
async fn a_payout_that_the_store_forgot_is_told_unknown_and_never_not_sent() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(3))]);
    let forgets = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.ledger.forget();
    };
    let (reply, ()) = tokio::join!(world.payouts.send(request(&[]), Encoding::Json, ()), forgets);
    let Reply::Failed(fault) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(fault, payout_domain::contract::error::ApiError::unknown());
    assert_eq!(world.upstream.paid(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_leaves_a_doubt_and_not_an_answer() {
    let world = world(false);
    world.upstream.will(&[Deed::Panics]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(
        state(&world),
        "pending",
        "the lease will run out, and the upstream will be asked"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_claim_of_a_dead_process_is_asked_about_by_a_repeat() {
    let world = world(true);
    world.ledger.put(claimed(claimed_at_here()));
    // However long ago it was claimed: its lease is over only once a process has seen the claim stand for that long.
    tokio::time::sleep(Duration::from_secs(15 * 3600)).await;
    assert_eq!(told(&world, request(&[])).await, "PROCESSING");
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!(
        (*world.upstream.queries.lock().unwrap(), world.upstream.paid()),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn the_settler_asks_until_it_is_settled() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAndSaysNothing]);
    *world.upstream.silent_to_queries.lock().unwrap() = true;
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let payouts = world.payouts.clone();
    let settler = tokio::spawn(super::Payouts::settle_until(move || payouts.clone(), async {
        let _ended = stopped.await;
    }));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let asked = *world.upstream.queries.lock().unwrap();
    assert!(
        (2..=20).contains(&asked),
        "asked {asked} times in two minutes, with growing pauses"
    );
    *world.upstream.silent_to_queries.lock().unwrap() = false;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(state(&world), "succeeded");
    let order = world.ledger.order().unwrap();
    assert_eq!(order.upstream_status.as_deref(), Some("SENT"));
    stop.send(()).unwrap();
    settler.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn limits_refuse_before_anything_is_recorded() {
    let world = world(false);
    assert_eq!(
        told(&world, request(&[("amount", "20001")])).await,
        "AMOUNT_LIMIT"
    );
    assert_eq!(state(&world), "none");
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_claim_and_sending_settles_as_not_paid() {
    let world = world(false);
    world.ledger.put(claimed(claimed_at_here()));
    tokio::time::sleep(Duration::from_secs(15 * 3600)).await;
    assert_eq!(world.payouts.settle_due().await.unwrap(), 1);
    assert_eq!(state(&world), "pending", "it has only just been seen");
    settle_for(&world, 90).await;
    assert!(matches!(world.ledger.order().unwrap().state, State::Refused(_)));
    assert_eq!(world.upstream.attempted(), 0);
}

#[tokio::test(start_paused = true)]
async fn observers_are_told_of_each_change_once() {
    let world = world(false);
    world.upstream.will(&[Deed::IsNotThere, Deed::PaysAndSaysNothing]);
    // The acknowledgements of the first claim and of its removal are lost: the flow tries each again, and tells once.
    let lost = Some(StoreFault::LosesAcknowledgement);
    world.ledger.next_writes(&[lost, None, lost, None]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    settle_for(&world, 90).await;
    assert_eq!(
        world.told.all(),
        [
            "claimed",
            "taken back: scripted",
            "claimed",
            "pending to unknown",
            "unknown to succeeded"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_although_the_caller_who_brought_it_about_is_gone() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAndSaysNothing]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    *world.ledger.acknowledges_after.lock().unwrap() = Duration::from_secs(2);
    let gone = tokio::time::timeout(Duration::from_secs(1), stands(&world, "A1")).await;
    assert!(gone.is_err(), "the caller has hung up");
    assert_eq!(state(&world), "succeeded", "the store has written");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.told.all().last().unwrap(), "unknown to succeeded");
}
