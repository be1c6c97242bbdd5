//! A timer that allocates only when something first waits for it, and whose deadline may move meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// The timer. Without a deadline it has none.
#[derive(Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Resolves when the deadline has passed; never without one. It asks for the deadline anew at each poll.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: impl Fn() -> Option<Instant>) -> Poll<()> {
        loop {
            let Some(deadline) = deadline() else {
                return Poll::Pending;
            };
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // A timer set too early only costs one more poll. Only one that is set too late needs a reset first.
            if deadline < sleep.deadline() {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(cx));
            if deadline <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// After how many seconds the alarm rings. Each change is the second at which it happens, and the new deadline in
    /// seconds from the start.
    async fn rings_after(changes: &[(u64, Option<u64>)]) -> u64 {
        let begun = Instant::now();
        let mut alarm = Alarm::default();
        let deadline = Cell::new(None);
        for second in 0.. {
            if let Some((_, changed)) = changes.iter().find(|(at, _)| *at == second) {
                deadline.set(changed.map(|seconds| begun + Duration::from_secs(seconds)));
            }
            let ringing = poll_fn(|cx| alarm.poll(cx, || deadline.get()));
            let next = begun + Duration::from_millis(second * 1000 + 999);
            if tokio::time::timeout_at(next, ringing).await.is_ok() {
                break;
            }
            assert!(second < 1000, "it never rings");
            tokio::time::sleep_until(begun + Duration::from_secs(second + 1)).await;
        }
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_its_deadline_wherever_that_moves() {
        assert_eq!(rings_after(&[(0, Some(10))]).await, 10);
        assert_eq!(rings_after(&[(0, Some(10)), (5, Some(20))]).await, 20, "on");
        assert_eq!(rings_after(&[(0, Some(75)), (1, Some(5))]).await, 5, "back");
        assert_eq!(
            rings_after(&[(0, Some(10)), (5, None), (30, Some(40))]).await,
            40,
            "away"
        );
        assert_eq!(rings_after(&[(3, Some(1))]).await, 3, "into the past");
    }
}
