//! Takes spans from the queue in batches and exports them, in a task of its own. A collector that takes nothing costs a line
//! in the log now and then, and the spans.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Settings;
use super::collector::{Collector, Unusable};
use super::proto::{Resource, request};
use super::queue::{BATCH, Queue};
use crate::telemetry::metrics::traces::TraceMetrics;

/// The longest that a span waits for its batch to be full.
const PAUSE: Duration = Duration::from_secs(5);
/// The pauses before a batch is sent again that may be taken then.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// How often a collector that does not take everything is worth a line in the log.
const REMINDER: Duration = Duration::from_secs(60);
/// How long the last export may take when the process ends.
const LAST: Duration = Duration::from_secs(2);

/// What exports.
pub(super) struct Export {
    queue: Arc<Queue>,
    collector: Collector,
    resource: Resource,
    counts: TraceMetrics,
    outage: Option<Outage>,
    failures: Reminder,
    rejections: Reminder,
}

/// A time in which nothing was taken.
#[derive(Default)]
struct Outage {
    lost: u64,
    was_told: bool,
}

/// When something was last written to the log.
#[derive(Default)]
struct Reminder(Option<Instant>);

impl Reminder {
    /// Whether it may be written now.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self
            .0
            .is_none_or(|told| now.saturating_duration_since(told) >= REMINDER);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// The task that exports.
pub struct Exporter {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Exports what still waits, for at most 2 s, and ends.
    pub async fn finish(self) {
        self.queue.close();
        let mut task = self.task;
        if timeout(LAST, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

impl Export {
    pub(super) fn new(
        settings: &Settings,
        queue: Arc<Queue>,
        counts: TraceMetrics,
    ) -> Result<Self, Unusable> {
        Ok(Self {
            queue,
            collector: Collector::new(settings)?,
            resource: settings.resource.clone(),
            counts,
            outage: None,
            failures: Reminder::default(),
            rejections: Reminder::default(),
        })
    }

    pub(super) fn begin(self) -> Exporter {
        let queue = Arc::clone(&self.queue);
        let task = tokio::spawn(self.run());
        Exporter { queue, task }
    }

    async fn run(mut self) {
        loop {
            let mut is_open = self.queue.holds(1).await;
            if is_open {
                // A batch, or what there is by then.
                is_open = timeout(PAUSE, self.queue.holds(BATCH)).await.unwrap_or(true);
            }
            loop {
                let spans = self.queue.take();
                if spans.is_empty() {
                    break;
                }
                let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
                let message = Bytes::from(request(&self.resource, &spans));
                let is_full = spans.len() == BATCH;
                drop(spans);
                self.export(count, &message).await;
                if is_open && !is_full {
                    break;
                }
            }
            if !is_open {
                return;
            }
        }
    }

    async fn export(&mut self, count: u64, message: &Bytes) {
        // One that has just refused a batch several times need not be asked as often for the next one.
        let pauses: &[Duration] = if self.outage.is_none() { &AGAIN_AFTER } else { &[] };
        let mut pauses = pauses.iter();
        let refusal = loop {
            match self.collector.send(message).await {
                Ok(rejected) => {
                    let rejected = std::cmp::min(rejected, count);
                    self.counts.exported.inc_by(count.saturating_sub(rejected));
                    self.counts.failed.inc_by(rejected);
                    if rejected > 0 && self.rejections.is_due() {
                        tracing::warn!(rejected, "the collector rejected spans");
                    }
                    if let Some(outage) = self.outage.take().filter(|outage| outage.was_told) {
                        tracing::info!(lost = outage.lost, "traces are exported again");
                    }
                    return;
                }
                Err(refusal) => match pauses.next() {
                    Some(pause) if refusal.may_pass => {
                        tokio::select! {
                            () = sleep(*pause) => {}
                            () = self.queue.closed() => {}
                        }
                    }
                    Some(_) | None => break refusal,
                },
            }
        };
        self.counts.failed.inc_by(count);
        let outage = self.outage.get_or_insert_default();
        outage.lost = outage.lost.saturating_add(count);
        if self.failures.is_due() {
            outage.was_told = true;
            tracing::warn!(lost = outage.lost, why = refusal.why, "spans were not exported");
        }
    }
}
