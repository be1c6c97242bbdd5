//! The core that decides about money: what a payout is, and which outcome an event proves. It has no I/O, no clock
//! and no random numbers: callers pass in times and nonces.
//!
//! Reading order: [`ids`] (the vocabulary as types), [`fields`] with [`json`], [`xml`] and [`encoding`] (bytes to
//! fields and back), [`contract`] (fields to requests, outcomes to response fields), [`path`] (request targets that
//! the proxy must not pass on), [`route`] (which merchant entry), [`order`] (the state machine), [`outcome`] (what
//! an upstream's response proves), [`wechat`] and [`handler`] (the two kinds of upstream).

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

pub mod breaker;

pub mod day;

pub mod limits;

pub mod merchant;

pub mod handler;

pub mod wechat;
