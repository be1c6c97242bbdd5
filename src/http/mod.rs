//! The HTTP parts that the main port, the proxy and the upstream clients share: TLS, timers, connections that can be
//! cut, permits, and responses. Nothing here decides about payouts.

pub(crate) mod alarm;

pub(crate) mod base_url;

pub(crate) mod client_tls;

pub(crate) mod drain;

pub(crate) mod framing_error;

pub(crate) mod http1;

pub(crate) mod in_flight;

pub(crate) mod line;

pub(crate) mod media;

pub(crate) mod peer;

pub(crate) mod plain_client;

pub(crate) mod responses;
