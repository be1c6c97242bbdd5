//! Who may call: one rule, one file. The order in which a request meets them is `http/stack.rs`'s.
//! Document: specification, section 7, `[server]` and `[access]`.

pub mod allow_ip;

pub mod in_flight;

pub mod metrics;

pub mod token;

#[cfg(test)]
mod tests;
