//! Every path that is not the contract's: forwarded to the customer's backend, streaming both ways, upgrades included.
//! Document: specification, section 3. Where a Service's target port is switched from the backend to the sidecar, nothing
//! else changes.
//!
//! [`backend`] reads the address and makes the client, `forward.rs` is the way of one request, `upgrade.rs` the tunnel,
//! [`body`] the one body type of the main port. The rules are pure: [`headers`] says what becomes of headers, [`target`]
//! of the request's target and `Host`, [`trace`](crate::telemetry::trace) of request ids and traces.

pub mod body;

pub mod backend;

mod forward;

pub mod headers;

mod interim;

pub mod target;

mod upgrade;

pub use self::backend::BackendError;
pub use self::forward::{Proxy, said};

#[cfg(test)]
mod tests;
