//! Where ended spans wait for their export: at most so many, and one that finds no place is dropped. Whoever puts one in
//! never waits, and the exporter is woken for the first one and for a full batch only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::span::Span;

/// The most spans that wait.
pub(super) const CAPACITY: usize = 2048;
/// The most spans that are exported at a time.
pub(super) const BATCH: usize = 512;

/// Spans that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    spans: Vec<Span>,
    is_closed: bool,
}

impl Queue {
    /// Puts a span in; says whether there was a place.
    pub(super) fn put(&self, span: Span) -> bool {
        let count = {
            let mut waiting = self.waiting();
            if waiting.is_closed || waiting.spans.len() >= CAPACITY {
                return false;
            }
            waiting.spans.push(span);
            waiting.spans.len()
        };
        if count == 1 || count == BATCH {
            self.changed.notify_one();
        }
        true
    }

    /// Takes the oldest batch out.
    pub(super) fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting();
        if waiting.spans.len() <= BATCH {
            return std::mem::take(&mut waiting.spans);
        }
        waiting.spans.drain(..BATCH).collect()
    }

    /// Takes no span any more.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits until so many spans wait, or the queue is closed; says whether it is open. For one waiter at a time.
    pub(super) async fn holds(&self, count: usize) -> bool {
        loop {
            {
                let waiting = self.waiting();
                if waiting.is_closed || waiting.spans.len() >= count {
                    return !waiting.is_closed;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits until the queue is closed.
    pub(super) async fn closed(&self) {
        while self.holds(usize::MAX).await {}
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::otlp::span::Kind;

    fn span(id: usize) -> Span {
        Span {
            trace: 1,
            id: u64::try_from(id).unwrap(),
            parent: None,
            flags: 1,
            name: "n".into(),
            kind: Kind::Internal,
            begun: 0,
            ended: 0,
            attributes: Vec::new(),
            failed: false,
        }
    }

    #[test]
    fn it_is_bounded_and_keeps_the_oldest_in_their_order() {
        let queue = Queue::default();
        let kept = (0..CAPACITY + 100).filter(|id| queue.put(span(*id))).count();
        assert_eq!(kept, CAPACITY);
        let mut next = 0;
        for _ in 0..CAPACITY / BATCH {
            let batch = queue.take();
            assert_eq!(batch.len(), BATCH);
            for taken in batch {
                assert_eq!(taken.id, next);
                next += 1;
            }
        }
        assert!(queue.take().is_empty());
        assert!(queue.put(span(1)), "there is room again");
        queue.close();
        assert!(!queue.put(span(2)), "not after its end");
        assert_eq!(queue.take().len(), 1, "what waited is still to be had");
    }

    #[tokio::test]
    async fn the_exporter_is_woken_for_the_first_one_a_full_batch_and_the_end() {
        let queue = Arc::new(Queue::default());
        let waiter = |count| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.holds(count).await })
        };
        let first = waiter(1);
        tokio::task::yield_now().await;
        assert!(!first.is_finished());
        queue.put(span(0));
        assert!(first.await.unwrap());
        let full = waiter(BATCH);
        for id in 1..BATCH {
            tokio::task::yield_now().await;
            assert!(!full.is_finished(), "{id}");
            queue.put(span(id));
        }
        assert!(full.await.unwrap());
        let more = waiter(CAPACITY);
        tokio::task::yield_now().await;
        queue.close();
        assert!(!more.await.unwrap());
        queue.closed().await;
    }
}
