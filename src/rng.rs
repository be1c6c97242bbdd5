//! The only source of randomness in the flow, so that a simulation can replay it.

/// Makes random numbers.
pub trait Rng: Send + Sync + 'static {
    /// A number that nobody can guess.
    fn next_u64(&self) -> u64;
}

/// `rand`'s generator of the thread, as for nonces and names elsewhere: a ChaCha of twelve rounds that the system seeds at a
/// thread's first number and again after each 64 KiB. So a payout's numbers cost no system call each, and they are fit for
/// keys. It would repeat itself in a forked process; none is forked here.
///
/// Where the system gives no seed, which Linux does from the boot on, the work at hand panics, as if the process had died.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_number_is_given_out_twice() {
        let each = || (0..5_000).map(|_| SystemRng.next_u64()).collect::<Vec<_>>();
        let other = std::thread::spawn(each);
        let mut seen: HashSet<u64> = each().into_iter().collect();
        seen.extend(other.join().unwrap());
        assert_eq!(seen.len(), 10_000, "64 random bits do not meet by chance");
    }
}
