//! The only source of randomness in the flow, so that a simulation can replay it.

use std::cell::RefCell;

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
        let mut bytes = [0; 8];
        fill(&mut bytes).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }
}

/// How many bytes the system is asked for at once: a payout needs several numbers, and each question costs a system call.
const AT_ONCE: usize = 512;

/// Bytes that the system gave and nobody has taken yet. Each is given out once.
struct Stock {
    bytes: [u8; AT_ONCE],
    left: usize,
}

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { bytes: [0; AT_ONCE], left: 0 }) };
}

/// Fills `into` with bytes of the system's randomness.
///
/// # Errors
/// When the system gives none, then its error.
pub fn fill(into: &mut [u8]) -> Result<(), getrandom::Error> {
    STOCK.with_borrow_mut(|stock| {
        for part in into.chunks_mut(AT_ONCE) {
            if stock.left < part.len() {
                getrandom::fill(&mut stock.bytes)?;
                stock.left = AT_ONCE;
            }
            let rest = stock.left.saturating_sub(part.len());
            if let Some(taken) = stock.bytes.get_mut(rest..stock.left) {
                part.copy_from_slice(taken);
                taken.fill(0);
            }
            stock.left = rest;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_number_is_given_out_twice() {
        let each = || {
            (0..5_000)
                .map(|_| SystemChance.number().unwrap())
                .collect::<Vec<_>>()
        };
        let other = std::thread::spawn(each);
        let mut seen: HashSet<u64> = each().into_iter().collect();
        seen.extend(other.join().unwrap());
        assert_eq!(seen.len(), 10_000, "64 random bits do not meet by chance");
    }

    #[test]
    fn any_length_is_filled() {
        for length in [0, 1, 7, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE] {
            let mut bytes = vec![0; length];
            fill(&mut bytes).unwrap();
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            assert!(
                zeros <= 1 + length / 16,
                "{zeros} zeros among {length} random bytes"
            );
        }
    }
}
