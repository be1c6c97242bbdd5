//! Forwards every path outside the contract to the customer's backend, streaming both ways, upgrades included.
//! `docs/http.md` lists the rules. When a Service's target port moves from the backend to the sidecar, nothing else
//! changes.
//!
//! [`backend`] has the client, `forward.rs` forwards one request, [`exchange`] has its timeouts and its end.
//! `upgrade.rs` tunnels upgraded connections; `websocket.rs` finds where their frames end. [`body`] is the one body
//! type of the main port. The rules are pure: [`headers`] for headers, [`target`] for the target and `Host`,
//! [`propagation`](crate::telemetry::propagation) for request ids and traces.

pub(crate) mod body;

pub(crate) mod backend;

pub(crate) mod exchange;

mod forward;

pub(crate) mod headers;

mod interim;

pub(crate) mod target;

mod upgrade;

mod websocket;

pub(crate) use self::forward::{Proxy, Settings};
pub(crate) use self::upgrade::Tunnels;

#[cfg(test)]
mod tests;
