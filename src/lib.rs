//! `payout-sidecar`: a reverse-proxy sidecar that pays WeChat red packets and transfers, once per order number.
//!
//! This is a library only so that tests, fuzzing and benchmarks can reach inside; the product is the binary.
//!
//! # Map, in the direction a request travels
//! * [`http`] accepts connections, [`door`] decides who may call, [`proxy`] forwards what is not a payout.
//! * [`payout`] is the flow of one payout: identify, claim, dispatch, weigh, record. It knows [`rules`] and its own
//!   ports (traits), nothing else.
//! * [`ledger`], [`identity`] and [`upstream`] implement those ports; [`redis_link`] is their one way to Redis.
//! * [`rules`] is pure: contract, codecs, signing, the state machine, the classes of error codes.
//! * [`config`] is read where things are built (in [`cli`]) and nowhere below.
//! * [`stub`] stands in for WeChat Pay and for a customer's handler, and shares no code with [`rules`].
//!
//! # Invariants
//! * [`rules`] has no `async`, no I/O, no clock and no randomness; time and nonces come as arguments.
//! * Nothing is sent without a claim in the ledger; a claim is the only key that opens an attempt.
//! * After the claim no error is an error: an attempt returns evidence, and evidence is weighed, never assumed.
//! * Arrows point one way: `http`, `admin`, `cli` to `payout` to `rules`.

#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::let_underscore_must_use,
        clippy::redundant_clone,
        clippy::unwrap_in_result,
        clippy::wildcard_enum_match_arm,
        reason = "a test that overflows or meets a variant it did not expect fails, as it should"
    )
)]

pub mod server;

pub mod payouts;

pub mod ledger;

pub mod openids;

pub mod upstream;

pub mod proxy;

pub mod admin;

pub mod app;

pub mod cli;

pub mod config;

pub mod redis;

pub mod http;

pub mod telemetry;

pub mod breaker;

pub mod clock;

pub mod file_watch;

pub mod private;

pub mod rng;
