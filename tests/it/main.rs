//! Integration tests: real sidecar processes, real Redis servers, fake-wechat over TLS. One binary, a module per
//! subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::unwrap_in_result,
    clippy::let_underscore_must_use,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::type_complexity,
    clippy::cloned_ref_to_slice_refs,
    missing_docs,
    unreachable_pub,
    reason = "a test that meets what it did not expect fails, as it should"
)]

mod support;

mod access;
mod admin_port;
mod api_document;
mod bad_input;
mod bills;
mod bills_keys;
mod bills_notified;
mod bombs;
mod circuit;
mod control_frames;
mod fake_wechat;
mod faults;
mod floods;
mod handler;
mod http1_rules;
mod http2_rules;
mod identity;
mod ledger;
mod ledger_file;
mod ledger_identity;
mod listen;
mod load;
mod marks;
mod metrics;
mod model;
mod openid;
mod operator;
mod otlp;
mod private;
mod process;
mod proxy;
mod redis;
mod reload;
mod rolling;
mod routers;
mod secrets;
mod send;
mod slow;
mod smuggling;
mod standstill;
mod suite;
mod surroundings;
mod surroundings_clocks;
mod surroundings_stores;
mod trace;
mod websockets;
