//! The only source of randomness for payouts, so that a simulation can replay them.

/// Generates random numbers.
pub trait Rng: Send + Sync + 'static {
    /// A number that nobody can predict.
    fn next_u64(&self) -> u64;
}

/// `rand`'s thread-local generator, which the code also uses for nonces and names elsewhere: ChaCha with twelve rounds,
/// which `rand` seeds from the system at a thread's first number and again after every 64 KiB. So random numbers cost a
/// payout no system call each, and they are fit for keys. The generator would repeat itself in a forked process; the
/// sidecar never forks.
///
/// If the system gives no seed (Linux always can once it has booted), the caller panics: for a payout that is the same
/// as a crash of the process.
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
        assert_eq!(seen.len(), 10_000, "64 random bits do not repeat");
    }
}
