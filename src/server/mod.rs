//! The main port, from socket to response.
//!
//! [`accept`] accepts connections within the limits of [`budget`], over [`tls`] where it is configured. [`activity`]
//! closes slow and idle connections; `connections.rs` decides which one makes room for a new one. `control_frames.rs`
//! and `streams.rs` limit what HTTP/2 callers may send and leave unread. [`strict`] passes only bytes that [`framing`]
//! accepts to hyper.
//!
//! [`stack`] lists the [`layers`] in order. [`contract_api`] answers the two paths of the platform's contract and
//! checks their [`signature`], [`call_error`] says why it refuses a call; [`webhook`] takes WeChat Pay's notifications.
//! The proxy is in `src/proxy`, the shutdown phases in `src/http/drain.rs`.

pub(crate) mod activity;

pub(crate) mod budget;

pub(crate) mod call_error;

pub(crate) mod contract_api;

pub mod framing;

pub(crate) mod accept;

pub(crate) mod webhook;

pub(crate) mod layers;

mod control_frames;

mod connections;

mod serves;

pub(crate) mod stack;

pub(crate) mod strict;

mod streams;

pub(crate) mod tls;

pub(crate) mod signature;
