//! The only source of randomness in the flow, so that a simulation can replay it.

/// Makes random numbers.
pub trait Chance: Send + Sync + 'static {
    /// A number that nobody can guess; `None` where the machine has no randomness.
    fn number(&self) -> Option<u64>;
}

/// The machine's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn number(&self) -> Option<u64> {
        getrandom::u64().ok()
    }
}
