//! What the main port may hold at the same time, so that all of it together fits the memory and the descriptors that the
//! process has. Pure: fixed shares, computed once from what there is, in place of counting bytes as they come and go. (Libraries
//! limit numbers, and know nothing of what each costs.)
//!
//! Each thing that a caller can make us hold has a cost: the most that it can take, since every buffer behind it is bounded
//! by what [`listen`](super::accept), [`backend`](crate::proxy::backend) and TLS are set to. An eighth of the memory is kept
//! free, the process at rest and the identity cache are set aside, and the rest is divided: two eighths for the contract's
//! calls, which no other traffic can take, and of which each takes as much as its body's length says; three for proxied requests, two for connections, one for upgraded connections.
//! What is configured lowers a share further, and never raises one.
//!
//! How the costs were measured: `RssAnon` of `/proc/PID/status` with 60 of a kind beside none, with the smaller buffers.
//! A quiet HTTP/1 connection takes 23 KiB, one with a head of 15 KiB that does not end 29; a quiet HTTP/2 connection 28; TLS
//! adds 12 to 18; an upgraded connection takes 24; an answer that its caller does not take 75, whichever the version. The
//! costs below are what these can become at worst, and are larger.

use std::cmp::{max, min};
use std::fmt;

/// One KiB and one MiB, in bytes.
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The process at rest: 4 MiB after its start, 4 MiB of the embedded ledger's cache, TLS towards upstreams, the admin port's
/// connections, and of its own file as much as is kept in memory for speed.
const AT_REST: u64 = 18 * MIB;
/// One entry of the identity cache: key, openid, and its place in the cache's tables.
const CACHED_OPENID: u64 = 256;
/// The least and the most that a head, and what is read ahead of a slow caller, may take, and for how much memory a byte of
/// it is given: 64 MiB give the least, 256 MiB the most.
const LEAST_BUFFER: u64 = 16 * KIB;
const MOST_BUFFER: u64 = 64 * KIB;
const MEMORY_PER_BYTE: u64 = 4096;
/// The least memory in which the shares are of use.
const LEAST: u64 = 32 * MIB;
/// What a connection has beside its head: its task, its socket in the kernel, its place among the others, and a read that is
/// held until the request before it is answered.
const CONNECTION: u64 = 28 * KIB;
/// What TLS adds to a connection: a record in each direction, decrypted text, keys.
const TLS: u64 = 64 * KIB;
/// What HTTP/2 adds to a connection: frames in both directions, a head in pieces, header tables, and a window of data that
/// nobody has asked for yet ([`WINDOW`]).
const HTTP2: u64 = 80 * KIB + WINDOW as u64;
/// What a contract call has beside its body, which is held twice (as it came, and as it is sent on).
const CALL: u64 = 32 * KIB;
/// What a proxied request has beside its buffers: two tasks, two sockets, heads as they were parsed.
const EXCHANGE: u64 = 40 * KIB;
/// An upgraded connection: two copying buffers, two sockets, and what was read ahead of the change.
const UPGRADED: u64 = 48 * KIB;
/// File descriptors that are kept for listeners, stores, upstreams, the admin port, and files that are read anew.
const DESCRIPTORS: u64 = 128;

/// How much a caller may send on an HTTP/2 connection, and on each of its streams, that was not asked for, in bytes.
pub const WINDOW: u32 = 64 * 1024;
/// How much of an answer is held for each HTTP/2 stream whose caller does not take it, in bytes; one read of the backend's
/// may come on top.
pub const SEND_BUFFER: usize = 16 * 1024;

/// Where the memory limit is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `[server] memory_limit`.
    Configured,
    /// The process's cgroup, which is what Kubernetes and Docker set.
    Cgroup,
    /// There is no limit: a part of the machine's memory.
    Machine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "server.memory_limit",
            Self::Cgroup => "the cgroup's limit",
            Self::Machine => "no limit is set: half of the machine's memory, at most 2 GiB",
        })
    }
}

/// What the process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// Memory, in bytes.
    pub memory: u64,
    /// Where that is from.
    pub source: Source,
    /// Open files.
    pub descriptors: u64,
}

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `max_connections`.
    pub connections: usize,
    /// `max_in_flight`.
    pub in_flight: usize,
    /// `max_body`, in bytes.
    pub body: usize,
    /// `cache_entries` of the identity store.
    pub cached: usize,
}

/// What connections may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The most connections.
    pub most: usize,
    /// The most that they may cost together, in bytes.
    pub bytes: u64,
    /// The most bytes of a request's head (HTTP/1), and of an answer that are held back for a caller that does not take it.
    pub head: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub streams: u32,
}

/// What one connection speaks, as far as it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// TLS.
    pub tls: bool,
    /// HTTP/2, or perhaps HTTP/2.
    pub http2: bool,
}

impl Room {
    /// The most that such a connection can hold, in bytes.
    #[must_use]
    pub fn cost(&self, speaks: Speaks) -> u64 {
        let tls = if speaks.tls { TLS } else { 0 };
        let http2 = if speaks.http2 { HTTP2 } else { 0 };
        size(self.head)
            .saturating_add(CONNECTION)
            .saturating_add(tls)
            .saturating_add(http2)
    }
}

/// What contract calls may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// The most in flight.
    pub most: usize,
    /// The most that they may cost together, in bytes; enough for one with the longest body.
    pub bytes: u64,
    /// The longest body, in bytes.
    pub body: usize,
}

impl Calls {
    /// The most that a call can hold whose body is as long as it says; without a length, as long as it may be.
    #[must_use]
    pub fn cost(&self, length: Option<u64>) -> u64 {
        let longest = size(self.body);
        call(min(length.unwrap_or(longest), longest))
    }
}

/// The shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What they are made of.
    pub means: Means,
    /// Connections to the main port.
    pub connections: Room,
    /// Contract calls in flight.
    pub calls: Calls,
    /// Proxied requests in flight.
    pub proxied: usize,
    /// Upgraded connections.
    pub upgraded: usize,
    /// How much of the backend's answer is read ahead of a slow caller, in bytes: the most of an answer's head, too.
    pub read_ahead: usize,
    /// Openids in the identity cache.
    pub cached: usize,
}

impl Budget {
    /// Divides what there is.
    #[must_use]
    pub fn of(means: Means, wanted: Wanted) -> Self {
        let Means { memory, .. } = means;
        let head = part(memory, MEMORY_PER_BYTE).clamp(LEAST_BUFFER, MOST_BUFFER);
        let read_ahead = head;
        let eighth = part(memory, 8);
        let cache = min(size(wanted.cached).saturating_mul(CACHED_OPENID), eighth);
        let rest = memory
            .saturating_sub(eighth)
            .saturating_sub(AT_REST)
            .saturating_sub(cache);
        let share = part(rest, 8);
        let descriptors = part(means.descriptors.saturating_sub(DESCRIPTORS), 8);
        // Each has one descriptor (towards its upstream), two (a connection in use and an unused one that is kept), two.
        let proxied = least(&[
            part(share.saturating_mul(3), exchange(head, read_ahead)),
            descriptors,
            size(wanted.in_flight),
        ]);
        let upgraded = least(&[
            part(share, UPGRADED),
            part(descriptors, 2),
            size(wanted.connections),
        ]);
        let bytes = share.saturating_mul(2);
        let plain = Room {
            most: 0,
            bytes,
            head: count(head),
            streams: streams(proxied),
        };
        let most = least(&[
            part(
                bytes,
                plain.cost(Speaks {
                    tls: false,
                    http2: false,
                }),
            ),
            descriptors.saturating_mul(4),
            size(wanted.connections),
        ]);
        // Fewer than connections: one whose body is slow keeps its connection until a newer call needs its place.
        let calls = Calls {
            most: count(least(&[
                descriptors,
                size(wanted.in_flight),
                part(most.saturating_mul(3), 4),
            ])),
            bytes: max(share.saturating_mul(2), call(size(wanted.body))),
            body: wanted.body,
        };
        Self {
            means,
            connections: Room {
                most: count(most),
                ..plain
            },
            calls,
            proxied: count(proxied),
            upgraded: count(upgraded),
            read_ahead: count(read_ahead),
            cached: count(min(size(wanted.cached), part(cache, CACHED_OPENID))),
        }
    }

    /// The most memory that all of it can take together, in bytes.
    #[must_use]
    pub fn worst(&self) -> u64 {
        let times = |count: usize, cost: u64| size(count).saturating_mul(cost);
        let head = size(self.connections.head);
        [
            AT_REST,
            times(self.cached, CACHED_OPENID),
            self.calls.bytes,
            times(self.proxied, exchange(head, size(self.read_ahead))),
            times(self.upgraded, UPGRADED),
            self.connections.bytes,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// What of the configuration cannot be had, in words; empty where all of it can.
    #[must_use]
    pub fn lowered(&self, wanted: Wanted) -> Vec<String> {
        let lowered = |what: &str, wanted: usize, to: usize| {
            (to < wanted).then(|| format!("{what}: {to} in place of {wanted}"))
        };
        [
            lowered(
                "connections (max_connections)",
                wanted.connections,
                self.connections.most,
            ),
            lowered(
                "contract calls in flight (max_in_flight)",
                wanted.in_flight,
                self.calls.most,
            ),
            lowered(
                "proxied requests in flight (max_in_flight)",
                wanted.in_flight,
                self.proxied,
            ),
            lowered("openids in the cache (cache_entries)", wanted.cached, self.cached),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Why this is too little to serve well, if it is.
    #[must_use]
    pub fn shortage(&self, wanted: Wanted) -> Option<String> {
        let Means { memory, source, .. } = self.means;
        if memory < LEAST {
            return Some(format!(
                "{} MiB of memory ({source}) are too few: give at least {} MiB, 64 MiB for a busy port",
                part(memory, MIB),
                part(LEAST, MIB)
            ));
        }
        (self.worst() > memory).then(|| {
            format!(
                "bodies of {} bytes (server.max_body) are too large for {} MiB of memory ({source}): lower the one or raise the other",
                wanted.body,
                part(memory, MIB)
            )
        })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            means,
            connections,
            calls,
            proxied,
            upgraded,
            ..
        } = self;
        write!(
            f,
            "{} MiB of memory ({}) and {} descriptors: {} connections, {} contract calls, {proxied} proxied requests, {upgraded} upgraded connections",
            part(means.memory, MIB),
            means.source,
            means.descriptors,
            connections.most,
            min(size(calls.most), part(calls.bytes, calls.cost(Some(KIB)))),
        )
    }
}

/// The most that a contract call can hold: its body as it came and as it is sent on.
fn call(body: u64) -> u64 {
    body.saturating_mul(2).saturating_add(CALL)
}

/// The most that a proxied request can hold: its head as it came and as it is sent on; of the answer one read in each of the
/// backend's buffer, the channel, the hands of the writer, and what the writer has taken beyond its limit; and that limit.
fn exchange(head: u64, read_ahead: u64) -> u64 {
    head.saturating_mul(2)
        .saturating_add(read_ahead.saturating_mul(4))
        .saturating_add(max(head, size(SEND_BUFFER)))
        .saturating_add(EXCHANGE)
}

/// Requests at the same time on one HTTP/2 connection: a quarter of all proxied ones, so that one caller never holds them
/// all, and enough for a browser or a gateway.
fn streams(proxied: u64) -> u32 {
    u32::try_from(part(proxied, 4).clamp(8, 128)).unwrap_or(8)
}

/// At least one of each: what is configured must work, if slowly.
fn least(bounds: &[u64]) -> u64 {
    max(1, bounds.iter().copied().min().unwrap_or(1))
}

fn part(whole: u64, of: u64) -> u64 {
    whole.checked_div(of).unwrap_or(0)
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn count(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULTS: Wanted = Wanted {
        connections: 8192,
        in_flight: 1024,
        body: 64 * 1024,
        cached: 100_000,
    };

    fn means(mib: u64, descriptors: u64) -> Means {
        Means {
            memory: mib * MIB,
            source: Source::Cgroup,
            descriptors,
        }
    }

    #[test]
    fn the_shares_of_usual_limits() {
        // As `docs/operate.md` tells them.
        let told = |mib, descriptors| {
            let budget = Budget::of(means(mib, descriptors), DEFAULTS);
            (
                budget.connections.most,
                size(budget.calls.most).min(budget.calls.bytes / budget.calls.cost(Some(KIB))),
                budget.proxied,
                budget.upgraded,
                budget.connections.streams,
            )
        };
        assert_eq!(told(64, 1_048_576), (174, 130, 75, 80, 18));
        assert_eq!(told(128, 1_048_576), (332, 249, 113, 208, 28));
        assert_eq!(told(256, 1_048_576), (505, 378, 142, 484, 35));
        assert_eq!(told(2048, 1_048_576), (4868, 1024, 1024, 4665, 128));
        assert_eq!(told(2048, 1024), (448, 112, 112, 56, 28), "few descriptors");
    }

    #[test]
    fn what_is_configured_is_never_exceeded() {
        let wanted = Wanted {
            connections: 2,
            in_flight: 1,
            body: 10,
            cached: 0,
        };
        let budget = Budget::of(means(4096, 1_000_000), wanted);
        assert_eq!(
            (
                budget.connections.most,
                budget.calls.most,
                budget.proxied,
                budget.upgraded
            ),
            (2, 1, 1, 2)
        );
        assert_eq!(budget.lowered(wanted), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let budget = Budget::of(means(64, 1024), DEFAULTS);
        let lowered = budget.lowered(DEFAULTS);
        assert_eq!(lowered.len(), 4, "{lowered:?}");
        assert!(lowered[0].ends_with("in place of 8192"), "{lowered:?}");
        assert_eq!(budget.shortage(DEFAULTS), None);
        let small = Budget::of(means(24, 1024), DEFAULTS);
        assert!(small.shortage(DEFAULTS).unwrap().starts_with("24 MiB"));
        let large_bodies = Wanted {
            body: 64 * 1024 * 1024,
            ..DEFAULTS
        };
        let budget = Budget::of(means(64, 1024), large_bodies);
        assert_eq!(budget.calls.bytes, budget.calls.cost(None), "one at a time");
        assert!(budget.shortage(large_bodies).unwrap().contains("max_body"));
    }

    proptest! {
        #[test]
        fn all_of_it_fits_or_is_said_not_to(
            mib in 0u64..8192, descriptors in 0u64..2_000_000, connections in 1usize..100_000, in_flight in 1usize..100_000,
            body in 1usize..10_000_000, cached in 0usize..1_000_000,
        ) {
            let wanted = Wanted { connections, in_flight, body, cached };
            let budget = Budget::of(means(mib, descriptors), wanted);
            prop_assert!(budget.calls.most >= 1 && budget.calls.cost(None) <= budget.calls.bytes && budget.proxied >= 1 && budget.upgraded >= 1 && budget.connections.most >= 1);
            prop_assert!(budget.calls.most <= in_flight && budget.proxied <= in_flight && budget.connections.most <= connections);
            prop_assert!(budget.cached <= cached);
            if budget.shortage(wanted).is_none() {
                prop_assert!(budget.worst() <= budget.means.memory);
            }
            // An enough of descriptors for the reserve is an enough for all.
            let open = size(budget.connections.most) + size(budget.calls.most) + 2 * size(budget.proxied) + 2 * size(budget.upgraded);
            prop_assert!(descriptors < DESCRIPTORS + 64 || open + DESCRIPTORS <= descriptors, "{open} of {descriptors}");
            prop_assert!(budget.proxied < 32 || size(budget.proxied) >= 4 * u64::from(budget.connections.streams));
        }

        #[test]
        fn more_memory_is_never_less_room(mib in 32u64..4096) {
            let (less, more) = (Budget::of(means(mib, 1_000_000), DEFAULTS), Budget::of(means(mib + 1, 1_000_000), DEFAULTS));
            prop_assert!(less.calls.bytes <= more.calls.bytes && less.proxied <= more.proxied && less.connections.most <= more.connections.most);
        }
    }
}
