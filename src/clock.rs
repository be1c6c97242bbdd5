//! The only code that reads clocks. Other code takes time as an argument or through [`Clock`]; tokio does the waiting.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use payout_domain::ids::Millis;

/// Tells the time, by the wall clock and by the monotonic clock.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, in milliseconds since 1970. It may step in either direction at any time.
    fn now(&self) -> Millis;

    /// The time since a fixed moment in this process. It never goes back and never steps.
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
