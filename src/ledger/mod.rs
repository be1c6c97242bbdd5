//! Placeholder of `ledger`, replaced as it is built.
