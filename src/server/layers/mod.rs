//! Who may call and how many at once: one rule per file. `server/stack.rs` sets the order in which a request meets
//! them. The settings are `[server]` and `[access]` in `config.toml`.

pub(crate) mod allow_ip;

pub(crate) mod in_flight;

pub(crate) mod metrics;

pub(crate) mod token;

#[cfg(test)]
mod tests;
