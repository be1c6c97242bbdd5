//! `payout-sidecar`: a reverse-proxy sidecar that pays WeChat red packets and transfers, once per order number.
//!
//! This is a library only so that tests, fuzzing and benchmarks can call its parts; the product is the binary.
//!
//! # Folders
//! * [`cli`] parses the command line and runs one command; [`app`] builds the process from its configuration, runs it,
//!   reloads the configuration and shuts down.
//! * [`server`] accepts connections on the main port and answers the two calls of the platform's contract; [`proxy`]
//!   forwards every other request to the customer's backend.
//! * [`admin`] serves probes, metrics and the operators' API on the admin port.
//! * [`payouts`] processes one payout: identify, claim, send, decide the outcome, record it. It knows [`payout_domain`]
//!   and the traits in [`payouts::ports`], but no store and no HTTP.
//! * [`ledger`], [`openids`] and [`upstream`] implement those traits: the store of payouts, the lookup from user id to
//!   openid, and the clients of WeChat Pay and of a customer's handler.
//! * [`redis`] connects to Redis for [`ledger`] and [`openids`]; [`http`] holds what several users of HTTP share.
//! * [`config`] reads `config.toml` and the environment into checked values. [`telemetry`] sets up logs, metrics and
//!   traces.
//! * [`breaker`], [`clock`], [`file_watch`], [`private`] and [`rng`] are small tools without payout logic.
//!
//! The crate [`payout_domain`] holds the contract, codecs, signing, the state machine and the classes of error codes.
//! The crate `fake-wechat` simulates WeChat Pay and a customer's handler for tests and the demo, and shares no code
//! with [`payout_domain`].
//!
//! # Invariants
//! * [`payout_domain`] has no `async`, no I/O, no clock and no randomness; time and nonces are arguments.
//! * The sidecar sends nothing without a claim in the ledger, and only a claim can start an attempt.
//! * After the claim an attempt never fails with an error: it returns evidence, and the state machine decides from that
//!   evidence, never from an assumption.
//! * Each folder uses only folders that stand before it in `LAYERS` in `tests/tidy.rs`.

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

mod proxy;

mod admin;

mod app;

pub mod cli;

pub mod config;

pub mod redis;

mod http;

pub mod telemetry;

mod breaker;

pub mod clock;

mod file_watch;

pub mod private;

pub mod rng;
