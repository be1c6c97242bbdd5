//! The main port: from socket to answer.
//!
//! [`accept`] accepts connections within limits, over [`tls`] where it is configured, and [`activity`] cuts off the slow
//! and the idle; [`budget`] says what all of them may hold, `slots` who gives way, `allowance` and `streams` what HTTP/2 may ask
//! of us; [`stack`] lists what a request passes in order, [`layers`] counts it, [`contract_api`] answers the two paths of
//! the platform's contract, [`call_error`] has what is refused before them, [`webhook`] takes WeChat Pay's notifications, [`drain`] ends everything in order.

pub mod activity;

pub mod budget;

pub mod call_error;

pub mod contract_api;

pub mod framing;

pub mod accept;

pub mod webhook;

pub mod layers;

mod control_frames;

mod connections;

pub mod stack;

pub mod strict;

mod streams;

pub mod tls;

pub mod signature;
