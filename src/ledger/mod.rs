//! The stores of payouts. They hold no rules: they write what the state machine decided, if the record is still the one
//! that the decision was about (see [`Ledger`](crate::payouts::ports::Ledger)).
//!
//! [`record`] is the stored form, [`charges`] what a change owes to or gets back from the limits; [`mod@file`] is the embedded
//! store for one process, [`redis`] the one for many, [`instrumented`] counts and times either. [`time`] is the ledger's own time,
//! [`keeper`] what a person decides about a ledger as a whole.

pub mod record;

pub mod charges;

pub mod time;

pub mod keeper;

pub mod file;

pub mod redis;

pub mod instrumented;

#[cfg(test)]
mod samples;
