//! What a payout is and what may become of it, without I/O, clock or randomness: time and nonces come as arguments.
//!
//! FieldReader order: [`ids`] (the words), [`fields`] with [`json`], [`xml`] and [`encoding`] (bytes to fields and back),
//! [`contract`] (fields to requests, answers to fields), [`path`] (what is no call of the contract), [`route`] (which
//! merchant), [`order`] (the state machine), [`outcome`] (what an upstream's answer proves), [`wechat`] and [`handler`] (the
//! two kinds of upstream).

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

pub mod ids;

pub mod secret;

pub mod redact;

pub mod fields;

pub mod json;

pub mod xml;

pub mod encoding;

pub mod text;

pub mod terminal;

pub mod contract;

pub mod path;

pub mod route;

pub mod order;

pub mod outcome;

pub mod schedule;

pub mod breaker;

pub mod day;

pub mod limits;

pub mod handler;

pub mod wechat;
