//! The main port: from socket to answer.
//!
//! [`listen`] accepts connections within limits, [`stack`] lists what a request passes in order, [`contract`] answers the
//! two paths of the platform's contract, [`drain`] ends everything in order.

pub mod contract;

pub mod drain;

pub mod listen;

pub mod stack;
