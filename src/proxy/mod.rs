//! Every path that is not the contract's: forwarded to the customer's backend, streaming both ways, upgrades included.
//! Document: specification, section 3. Where a Service's target port is switched from the backend to the sidecar, nothing
//! else changes.
//!
//! [`backend`] reads the address and makes the client, `forward.rs` is the way of one request, [`exchange`] its life, `line.rs`
//! the connection that it can cut, `upgrade.rs` the tunnel (of `websocket.rs` it learns where frames end), [`body`] the one
//! body type of the main port. The rules are pure: [`headers`] says what becomes of headers, [`target`]
//! of the request's target and `Host`, [`trace`](crate::telemetry::propagation) of request ids and traces.

pub mod body;

pub mod backend;

pub mod exchange;

mod forward;

pub mod headers;

mod interim;

pub mod target;

mod upgrade;

mod websocket;

pub use self::forward::{Proxy, Settings};
pub use self::upgrade::Tunnels;

#[cfg(test)]
mod tests;
