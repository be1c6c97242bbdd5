//! The pure middle: what a payout is and what may become of it, without I/O, clock or randomness.
//!
//! Reading order: [`term`] (the words), [`fields`] with [`json`], [`xml`] and [`encoding`] (bytes to fields and back),
//! `contract` (fields to requests, answers to fields), [`path`] (what is no call of the contract), [`route`] (which merchant), `order` (the state machine),
//! `outcome` (what an upstream's answer proves), [`wechat`] and `handler` (the two kinds of upstream).

pub mod term;

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

pub mod pace;

pub mod circuit;

pub mod day;

pub mod limits;

pub mod handler;

pub mod wechat;
