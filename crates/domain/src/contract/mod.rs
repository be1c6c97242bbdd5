//! The platform's contract (`docs/api.md`): reads requests from fields and composes the fields of responses. What
//! becomes of an order is decided elsewhere, in [`order`](crate::order).
//!
//! [`err_code`], [`error`] and [`reason`] hold what a caller is told when something is wrong, [`field_reader`] takes
//! typed values out of fields, [`send`] and [`status`] are the two requests, [`answer`] composes the responses to both.

pub mod err_code;
pub mod error;

pub mod reason;

pub mod field_reader;

pub mod send;

pub mod status;

pub mod answer;
