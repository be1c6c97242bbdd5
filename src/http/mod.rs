//! The main port: from socket to answer.
//!
//! [`listen`] accepts connections within limits, over [`tls`] where it is configured, and [`activity`] cuts off the slow
//! and the idle; [`budget`] says what all of them may hold, `seats` who gives way, `ration` and `streams` what HTTP/2 may ask
//! of us; [`stack`] lists what a request passes in order, [`observe`] counts it, [`contract`] answers the two paths of
//! the platform's contract, [`answers`] has what is refused before them, [`notify`] takes WeChat Pay's notifications, [`drain`] ends everything in order.

pub mod activity;

pub mod answers;

pub mod budget;

pub mod contract;

pub mod drain;

pub mod framing;

pub mod listen;

pub mod notify;

pub mod observe;

mod ration;

mod seats;

pub mod stack;

pub mod strict;

mod streams;

pub mod tls;
