//! The only reader of the wall clock. Everything below takes time as an argument or through [`Clock`].

use crate::rules::term::Millis;

/// Tells the wall-clock time. Monotonic waiting is tokio's, which tests can pause.
pub trait Clock: Send + Sync + 'static {
    /// Now, in milliseconds since 1970.
    fn now(&self) -> Millis;
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
}
