//! Answers to both requests, as fields.
