//! The platform's contract: requests read from fields, answers written to fields.
//! Document: specification, section 2.
//!
//! [`error`] is what the caller is told when something is wrong, [`field_reader`] takes typed values out of fields,
//! [`send`] and [`status`] are the two requests, [`answer`] the answers to both.

pub mod error;

pub mod field_reader;

pub mod send;

pub mod status;

pub mod answer;
