//! What the main port may hold at the same time, so that all of it fits the process's memory and file descriptors.
//! Pure: it computes fixed shares once from what there is, instead of counting bytes at run time. Libraries limit
//! numbers only, and do not know what each item costs.
//!
//! Each item that a caller can make us hold has a cost: the most memory that it can take. Costs are bounded because
//! [`accept`](super::accept), [`backend`](crate::proxy::backend) and TLS bound every buffer. An eighth of the memory
//! stays free. From the rest [`Budget::of`] subtracts the process at rest and the openid cache, and divides what
//! remains into eighths: two for contract calls, three for proxied requests, two for connections, one for upgraded
//! connections. No other traffic can take the share of contract calls, and each call takes as much of it as its body's
//! length says. The configuration can lower a share further, never raise one.
//!
//! How the costs were measured: `RssAnon` of `/proc/PID/status` with 60 items of a kind, compared with none, with the
//! smaller buffers. A quiet HTTP/1 connection takes 23 KiB; one with an unfinished head of 15 KiB takes 29; a quiet
//! HTTP/2 connection takes 28; TLS adds 12 to 18; an upgraded connection takes 24; a response that its caller does not
//! read takes 75 in either version. The costs below are worst cases, and larger.

use std::cmp::{max, min};
use std::fmt;

/// One KiB and one MiB, in bytes.
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The process at rest: 4 MiB after its start, 4 MiB for the embedded ledger's cache, TLS towards upstreams, the admin
/// port's connections, and those pages of the executable that must stay in memory for speed.
const AT_REST: u64 = 18 * MIB;
/// One entry of the openid cache: key, openid, and its slot in the cache's tables.
const CACHED_OPENID: u64 = 256;
/// The least and the most that a request's head, and the data read ahead of a slow caller, may take; and the bytes of
/// memory for which `Budget::of` grants one byte of it: 64 MiB grant the least, 256 MiB the most.
const LEAST_BUFFER: u64 = 16 * KIB;
const MOST_BUFFER: u64 = 64 * KIB;
const MEMORY_PER_BYTE: u64 = 4096;
/// The least memory for which these shares work.
const LEAST: u64 = 32 * MIB;
/// What a connection takes beside its head: its task, its socket in the kernel, its entry in the table of connections,
/// and a read that waits until the request before it is answered.
const CONNECTION: u64 = 28 * KIB;
/// What TLS adds to a connection: a record in each direction, decrypted text, keys.
const TLS: u64 = 64 * KIB;
/// What HTTP/2 adds to a connection: frames in both directions, a head in pieces, header tables, and a window of data
/// that we have not asked for yet ([`WINDOW`]).
const HTTP2: u64 = 80 * KIB + WINDOW as u64;
/// What a contract call takes beside its body, which counts twice: as received and as sent on.
const CALL: u64 = 32 * KIB;
/// What a proxied request takes beside its buffers: two tasks, two sockets, parsed heads.
const EXCHANGE: u64 = 40 * KIB;
/// An upgraded connection: two copy buffers, two sockets, and what was read before the switch.
const UPGRADED: u64 = 48 * KIB;
/// File descriptors reserved for listeners, stores, upstreams, the admin port, and files that the process reads again.
const DESCRIPTORS: u64 = 128;

/// How many bytes a caller may send on an HTTP/2 connection, and on each of its streams, before we ask for more.
pub(crate) const WINDOW: u32 = 64 * 1024;
/// How many bytes of a response we hold for each HTTP/2 stream whose caller does not read it. One read from the backend
/// may come on top.
pub(crate) const SEND_BUFFER: usize = 16 * 1024;

/// Where the memory limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `[server] memory_limit`.
    Configured,
    /// The process's cgroup, whose limit Kubernetes and Docker set.
    Cgroup,
    /// No limit is set: half of the machine's memory, at most 2 GiB.
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

/// What the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Means {
    /// Memory, in bytes.
    pub memory: u64,
    /// Where `memory` comes from.
    pub source: Source,
    /// The limit of open files.
    pub descriptors: u64,
}

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `max_connections`.
    pub connections: usize,
    /// `max_in_flight`.
    pub in_flight: usize,
    /// `max_body`, in bytes.
    pub body: usize,
    /// `cache_entries` of the openid store.
    pub cached: usize,
}

/// Limits for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The most connections at the same time.
    pub most: usize,
    /// The most that they may cost together, in bytes.
    pub bytes: u64,
    /// The most bytes of an HTTP/1 request's head, and of a response that we hold back for a caller that does not read
    /// it.
    pub head: usize,
    /// The most requests at the same time on one HTTP/2 connection.
    pub streams: u32,
}

/// The protocols of a connection, which decide its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speaks {
    /// TLS.
    pub tls: bool,
    /// HTTP/2, or possibly HTTP/2.
    pub http2: bool,
}

impl Room {
    /// The most that such a connection can hold, in bytes.
    #[must_use]
    pub(crate) fn cost(&self, speaks: Speaks) -> u64 {
        let tls = if speaks.tls { TLS } else { 0 };
        let http2 = if speaks.http2 { HTTP2 } else { 0 };
        size(self.head)
            .saturating_add(CONNECTION)
            .saturating_add(tls)
            .saturating_add(http2)
    }
}

/// Limits for contract calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calls {
    /// The most calls in flight.
    pub most: usize,
    /// The most that they may cost together, in bytes; always enough for one call with the longest body.
    pub bytes: u64,
    /// The longest body, in bytes.
    pub body: usize,
}

impl Calls {
    /// The most bytes that a call can hold with a body of this length. Without a length, the longest body counts.
    #[must_use]
    pub(crate) fn cost(&self, length: Option<u64>) -> u64 {
        let longest = size(self.body);
        call(min(length.unwrap_or(longest), longest))
    }
}

/// The share of each kind of item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// The memory and descriptors that it divides.
    pub means: Means,
    /// Limits for connections to the main port.
    pub connections: Room,
    /// Limits for contract calls in flight.
    pub calls: Calls,
    /// The most proxied requests in flight.
    pub proxied: usize,
    /// The most upgraded connections.
    pub upgraded: usize,
    /// How many bytes of the backend's response we read ahead of a slow caller; also the most for a response's head.
    pub read_ahead: usize,
    /// The most openids in the openid cache.
    pub cached: usize,
}

impl Budget {
    /// Divides `means`; `wanted` can only lower a share.
    #[must_use]
    pub(crate) fn of(means: Means, wanted: Wanted) -> Self {
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
        // Descriptors of each: a contract call has one (to its upstream), a proxied request two (a connection in use
        // and an idle one in the pool), an upgraded connection two (both of its sockets).
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
        // Fewer calls than connections: a call with a slow body keeps its connection until a newer call needs its
        // permit, and that newer call needs a connection to arrive on.
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

    /// The most memory that all items can take together, in bytes.
    #[must_use]
    pub(crate) fn worst(&self) -> u64 {
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

    /// Which settings are lowered, in words; empty if none is.
    #[must_use]
    pub(crate) fn lowered(&self, wanted: Wanted) -> Vec<String> {
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

    /// Why the memory is too small to serve well, or `None`.
    #[must_use]
    pub(crate) fn shortage(&self, wanted: Wanted) -> Option<String> {
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

/// The most bytes that a contract call can hold: its body as received and as sent on.
fn call(body: u64) -> u64 {
    body.saturating_mul(2).saturating_add(CALL)
}

/// The most bytes that a proxied request can hold: its head as received and as sent on; of the response one read each
/// in the backend connection's buffer, in the channel, in the writer's hands, and beyond the writer's limit; and that
/// limit.
fn exchange(head: u64, read_ahead: u64) -> u64 {
    head.saturating_mul(2)
        .saturating_add(read_ahead.saturating_mul(4))
        .saturating_add(max(head, size(SEND_BUFFER)))
        .saturating_add(EXCHANGE)
}

/// The most requests at the same time on one HTTP/2 connection: a quarter of all proxied requests, so that one caller
/// cannot take all permits, but at least 8, which a browser or a gateway needs.
fn streams(proxied: u64) -> u32 {
    u32::try_from(part(proxied, 4).clamp(8, 128)).unwrap_or(8)
}

/// The smallest bound, but at least one: what is configured must work, if slowly.
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
        // `docs/operate.md` shows these numbers.
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
            // If the descriptors cover the reserve, they cover everything.
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
