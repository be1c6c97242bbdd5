//! `payout-sidecar man`: prints or writes the manual pages, which clap makes from the same texts as `--help`.

use std::path::Path;

use anyhow::Context as _;

/// Prints the program's own page, or writes that page and one for each command to a directory.
pub(super) fn man(program: clap::Command, directory: Option<&Path>) -> anyhow::Result<()> {
    match directory {
        None => clap_mangen::Man::new(program)
            .render(&mut std::io::stdout())
            .context("standard output"),
        Some(directory) => std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(program, directory))
            .with_context(|| directory.display().to_string()),
    }
}
