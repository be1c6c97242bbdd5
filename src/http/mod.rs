//! The main port: from socket to answer.
//!
//! [`listen`] accepts connections within limits, over [`tls`] where it is configured, and [`activity`] cuts off the slow
//! and the idle; [`stack`] lists what a request passes in order, [`observe`] counts it, [`contract`] answers the two paths of
//! the platform's contract, [`notify`] takes WeChat Pay's notifications, [`drain`] ends everything in order.

pub mod activity;

pub mod contract;

pub mod drain;

pub mod framing;

pub mod listen;

pub mod notify;

pub mod observe;

pub mod stack;

pub mod strict;

pub mod tls;
