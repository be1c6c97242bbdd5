//! The platform's contract: requests read from fields, answers written to fields.
//! Document: specification, section 2.
//!
//! [`fault`] is what the caller is told when something is wrong, [`reading`] takes typed values out of fields,
//! [`send`] and [`status`] are the two requests, [`answer`] the answers to both.

pub mod fault;

pub mod reading;

pub mod send;

pub mod status;

pub mod answer;
