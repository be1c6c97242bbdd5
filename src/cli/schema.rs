//! `payout-sidecar schema`: the JSON Schema of config.toml.

use super::Ending;

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
pub(super) fn print() -> Ending {
    println!("{:#}", crate::config::schema::schema());
    Ending::Done
}
