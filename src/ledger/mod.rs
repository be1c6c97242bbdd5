//! The stores of payouts. They have no rules of their own: they write what the state machine decided, if the record
//! is still the version that the decision was about (see [`Ledger`](crate::payouts::ports::Ledger)).
//!
//! [`record`] is the stored form of an order. [`charges`] finds what a change adds to the limits and gives back.
//! [`mod@file`] is the embedded store for one process, [`redis`] the store for many; [`instrumented`] counts and
//! times either. [`time`] is the ledger's own time. [`keeper`] is what an operator decides about a ledger as a whole.

pub mod record;

pub mod charges;

pub mod time;

pub mod keeper;

pub mod file;

pub mod redis;

pub mod instrumented;

#[cfg(test)]
mod samples;
