//! What the main port, the proxy and the upstreams share about HTTP and the connections that carry it.

pub(crate) mod alarm;

pub mod base_url;

pub mod client_tls;

pub mod drain;

pub mod framing_error;

pub mod http1;

pub mod in_flight;

pub(crate) mod line;

pub mod media;

pub mod peer;

pub(crate) mod plain_client;

pub mod responses;
