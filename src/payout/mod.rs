//! The flow of one payout: identify, claim, dispatch, weigh, record.

pub mod ports;

pub mod claim;
