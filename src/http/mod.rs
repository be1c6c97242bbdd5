//! The HTTP parts that the main port, the proxy and the upstream clients share: TLS, timers, connections that can be
//! cut, permits, and responses. Nothing here decides about payouts.

pub(crate) mod alarm;

pub mod base_url;

pub mod client_tls;

pub mod drain;

pub mod http1;

pub mod in_flight;

pub(crate) mod line;

pub mod media;

pub mod peer;

pub(crate) mod plain_client;

pub mod responses;
