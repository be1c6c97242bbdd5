//! The flow against a scripted world: what is sent, what is recorded, what callers are told.

mod simulation;
mod world;

use std::time::Duration;

use super::reply::Reply;
use crate::rules::contract::answer::Disclosure;
use crate::rules::contract::send::SendRequest;
use crate::rules::encoding::Encoding;
use crate::rules::order::tests::{claimed, request};
use crate::rules::order::{State, UpstreamKind};
use crate::rules::outcome::Class;
use crate::rules::term::{MchId, OrderKey, OrderNo};
use world::{Deed, StoreFault, World, world};

/// The code that a caller is told: `SUCCESS`, or `errCode`.
async fn told(world: &World, request: SendRequest) -> String {
    match world.payouts.send(request, Encoding::Json, ()).await {
        Ok(reply) => code(reply),
        Err(fault) => fault.code.as_str().to_owned(),
    }
}

fn code(reply: Reply) -> String {
    let key = OrderKey {
        mch_id: MchId::parse("19").unwrap(),
        order_no: OrderNo::parse("A1").unwrap(),
    };
    let fields = reply.into_fields(&key, Disclosure::default());
    assert_eq!(
        fields.characters("mchBillno"),
        Some("A1"),
        "mchBillno is in every answer"
    );
    fields
        .characters("errCode")
        .or_else(|| fields.characters("resultCode"))
        .unwrap_or_default()
        .to_owned()
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
        std::sync::Arc::new(crate::chance::SystemChance),
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
    assert_eq!(
        (here.as_str(), code(there.unwrap()).as_str()),
        ("SUCCESS", "SUCCESS")
    );
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
async fn a_burnt_number_answers_from_the_record() {
    let world = world(true);
    world.upstream.will(&[Deed::Refuses(Class::Burnt)]);
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
async fn a_refusal_at_the_door_says_nothing_about_the_first_attempt() {
    let world = world(true);
    world
        .upstream
        .will(&[Deed::SaysNothing, Deed::Refuses(Class::Door)]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(state(&world), "unknown");
}

#[tokio::test(start_paused = true)]
async fn absence_is_believed_in_time_and_then_the_order_is_sent_again() {
    let world = world(false);
    world.upstream.will(&[Deed::SaysNothing]);
    assert_eq!(told(&world, request(&[])).await, "SYSTEMERROR");
    assert_eq!(
        told(&world, request(&[])).await,
        "SYSTEMERROR",
        "it may still be on its way"
    );
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(told(&world, request(&[])).await, "SUCCESS");
    assert_eq!((world.upstream.attempted(), world.upstream.paid()), (2, 1));
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

/// The store has lost the record while the payout was under way: the caller is not told that nothing was sent.
#[tokio::test(start_paused = true)]
async fn a_payout_that_the_store_forgot_is_told_unknown_and_never_not_sent() {
    let world = world(false);
    world.upstream.will(&[Deed::PaysAfter(Duration::from_secs(3))]);
    let forgets = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.ledger.forget();
    };
    let (reply, ()) = tokio::join!(world.payouts.send(request(&[]), Encoding::Json, ()), forgets);
    let Ok(Reply::Failed(fault)) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(fault, crate::rules::contract::fault::Fault::unknown());
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
    world.ledger.put(claimed(UpstreamKind::Handler));
    let until_its_lease_is_over = Duration::from_secs(15 * 3600);
    tokio::time::sleep(until_its_lease_is_over).await;
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
    let settler = tokio::spawn(world.payouts.clone().settle_until(async {
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
    world.ledger.put(claimed(UpstreamKind::Handler));
    tokio::time::sleep(Duration::from_secs(15 * 3600)).await;
    assert_eq!(world.payouts.settle_due().await.unwrap(), 1);
    assert!(matches!(world.ledger.order().unwrap().state, State::Refused(_)));
    assert_eq!(world.upstream.attempted(), 0);
}
