//! Who may call and how many at once: one rule per file. `server/stack.rs` sets the order in which a request meets
//! them. The settings are `[server]` and `[access]` in `config.toml`.

pub mod allow_ip;

pub mod in_flight;

pub mod metrics;

pub mod token;

#[cfg(test)]
mod tests;
