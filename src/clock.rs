//! The only reader of clocks. Everything below takes time as an argument or through [`Clock`]; waiting is tokio's.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use payout_domain::ids::Millis;

/// Tells the time, by both of a machine's clocks.
pub trait Clock: Send + Sync + 'static {
    /// Now by the wall clock, in milliseconds since 1970. It may step, in either direction and at any time.
    fn now(&self) -> Millis;

    /// What has passed since some moment before, always the same one in a process: never goes back and never steps.
    fn passed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    fn now(&self) -> Millis {
        let elapsed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    fn passed(&self) -> Duration {
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        BEGUN.get_or_init(Instant::now).elapsed()
    }
}
