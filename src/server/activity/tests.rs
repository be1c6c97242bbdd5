//! When a connection times out, which one goes first, and how a connection learns what it is asked to do.

use super::*;

const TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts {
    head: Duration::from_secs(5),
    idle: Duration::from_secs(75),
};

/// After how many seconds a connection times out if nothing changes.
async fn cut_after(activity: &Activity) -> u64 {
    let begun = Instant::now();
    let never = std::future::pending::<()>();
    let watched = Watched::new(never, |_| {}, activity.clone(), TIMEOUTS);
    assert_eq!(watched.await, Err(Cut::Slow));
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_head_has_less_time_than_a_quiet_connection() {
    let activity = Activity::new(true);
    assert_eq!(cut_after(&activity).await, 5, "the first request is owed at once");
    drop(activity.begin(false));
    assert_eq!(cut_after(&activity).await, 75);
    drop(activity.begin(false));
    activity.bytes_came();
    assert_eq!(cut_after(&activity).await, 5);
}

#[tokio::test(start_paused = true)]
async fn more_bytes_of_a_head_buy_no_time() {
    let activity = Activity::new(true);
    let trickle = {
        let activity = activity.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                activity.bytes_came();
            }
        }
    };
    let begun = Instant::now();
    assert!(Watched::new(trickle, |_| {}, activity, TIMEOUTS).await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_served_is_never_cut_off() {
    let activity = Activity::new(true);
    let served = {
        let activity = activity.clone();
        async move {
            let (one, other) = (activity.begin(false), activity.begin(false));
            tokio::time::sleep(Duration::from_secs(1000)).await;
            drop(one);
            tokio::time::sleep(Duration::from_secs(1000)).await;
            drop(other);
            std::future::pending::<()>().await;
        }
    };
    let begun = Instant::now();
    assert!(Watched::new(served, |_| {}, activity, TIMEOUTS).await.is_err());
    assert_eq!(begun.elapsed().as_secs(), 2075);
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_nothing_of_an_answer_is_cut_off() {
    let activity = Activity::new(true);
    let _answered = activity.begin(false);
    for _ in 0..3 {
        activity.wrote(false);
        tokio::time::sleep(Duration::from_secs(70)).await;
        activity.wrote(true);
    }
    activity.wrote(false);
    tokio::time::sleep(Duration::from_secs(70)).await;
    activity.wrote(false);
    assert_eq!(
        cut_after(&activity).await,
        5,
        "75 s after the first byte was not taken"
    );
}

/// Never ends, unless asked to finish.
#[derive(Default)]
struct Endless {
    is_asked: bool,
}

impl Future for Endless {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.is_asked {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_connection_is_asked_for_reaches_it_while_it_waits() {
    let begun = Instant::now();
    for (asked, ended) in [(Asked::ToFinish, Ok(())), (Asked::ToGo, Err(Cut::MadeRoom))] {
        for is_asked_first in [true, false] {
            let activity = Activity::new(true);
            let _busy = activity.begin(false);
            let finish = |mut connection: Pin<&mut Endless>| connection.is_asked = true;
            let watched = Watched::new(Endless::default(), finish, activity.clone(), TIMEOUTS);
            let mut watched = std::pin::pin!(watched);
            if is_asked_first {
                activity.ask(asked);
            } else {
                assert!(futures_util::poll!(&mut watched).is_pending());
                let later = activity.clone();
                drop(tokio::spawn(async move { later.ask(asked) }));
            }
            assert_eq!(watched.await, ended);
        }
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_goes_first() {
    let at = async |prepare: fn(&Activity) -> Option<Busy>, seconds| {
        let activity = Activity::new(true);
        activity.looked_at();
        let kept = prepare(&activity);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        (activity, kept)
    };
    let quiet = |activity: &Activity| {
        drop(activity.begin(false));
        None
    };
    let mut all = [
        // From the first to go to the last.
        at(|_| None, 3).await,
        at(|_| None, 2).await,
        at(quiet, 30).await,
        at(quiet, 20).await,
        at(|activity| Some(activity.begin(false)), 10).await,
        at(|activity| Some(activity.begin(false)), 5).await,
        at(|activity| Some(activity.begin(true)), 60).await,
    ];
    let now = Instant::now();
    let missed = |activity: &Activity| match activity.standing(now) {
        Standing::Goes(missed) => missed,
        stays => panic!("{stays:?}"),
    };
    let order: Vec<_> = all[..6].iter().map(|(activity, _)| missed(activity)).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(all[6].0.standing(now), Standing::Stays, "a contract call");
    assert_eq!(
        Activity::new(true).standing(now),
        Standing::Soon,
        "a head that has just begun"
    );
    // With its response made, it ranks like the others: a caller cannot keep a connection by reading late.
    let busy = all[6].1.take().unwrap();
    let _untaken = busy.answered(Response::new(()));
    assert!(matches!(all[6].0.standing(now), Standing::Goes(_)));
    // A connection on which something moves stays longer.
    all[4].0.answer_taken(now);
    assert!(missed(&all[4].0) > missed(&all[5].0));
}

#[tokio::test(start_paused = true)]
async fn bytes_on_a_quiet_http2_connection_begin_no_head() {
    let activity = Activity::new(false);
    drop(activity.begin(false));
    activity.bytes_came();
    assert_eq!(cut_after(&activity).await, 75);
}
