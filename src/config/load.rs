//! Reads the file and the environment into a [`Config`], or into the list of everything that is wrong with
//! them.
//!
//! The environment is an argument; only [`environment`] reads the process's own. This module wipes its own
//! texts that may hold secrets after reading them. It cannot wipe the copies that the parsers made.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};
use zeroize::Zeroizing;

use crate::clock::{Clock as _, SystemClock};
use payout_domain::ids::Millis;

use super::Config;
use super::errors::{ConfigErrors, Location, Origins, Problems};
use super::overlay::overlay;
use super::raw::Raw;
use super::secret_ref::{SecretSources, wipe};
use super::shape::{Shape, join};

/// The environment of the process. Text that is not UTF-8 gets replacement characters, which no setting
/// accepts.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Reads a configuration: the file at `path`, overridden by `env`, with the secrets and files that it refers
/// to. Blocks on file reads, so call it on a thread that may block.
///
/// # Errors
/// Returns all mistakes at once if the file cannot be read or anything in it is wrong.
pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
    load_at(path, env, SystemClock.now())
}

/// Like [`load`], at the given time (certificates expire).
pub(super) fn load_at(
    path: &Path,
    env: impl Iterator<Item = (String, String)>,
    now: Millis,
) -> Result<Config, ConfigErrors> {
    let env: BTreeMap<_, _> = env.map(|(name, text)| (name, Zeroizing::new(text))).collect();
    let mut problems = Problems::default();
    let config = read(path, env, now, &mut problems);
    let clean = problems.is_clean();
    let (errors, warnings) = problems.finish();
    match config {
        Some(config) if clean => Ok(Config { warnings, ..config }),
        Some(_) | None => Err(ConfigErrors {
            file: path.to_owned(),
            errors,
        }),
    }
}

/// Returns the configuration if the file could be read far enough to build one. Mistakes go to `problems`.
fn read(
    path: &Path,
    env: BTreeMap<String, Zeroizing<String>>,
    now: Millis,
    problems: &mut Problems,
) -> Option<Config> {
    let text = match std::fs::read(path).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) => {
            let kind = error.kind();
            problems.at(
                Location::Nowhere,
                format!("the file cannot be read ({kind}): name it with --config"),
            );
            return None;
        }
    };
    let Ok(text) = std::str::from_utf8(&text) else {
        problems.at(
            Location::Nowhere,
            "the file is not UTF-8 text: save it as UTF-8".into(),
        );
        return None;
    };
    let mut file = parse(text, problems)?;

    let shape = Shape::of_file();
    overlay(&mut file, &shape, &env, problems);
    shape.check_file(&mut file, problems);
    let mut whole = Value::Table(file);
    let raw = whole.clone().try_into::<Raw>();
    wipe(&mut whole);
    let raw = match raw {
        Ok(raw) => raw,
        Err(error) => {
            // The shape check rejects whatever the structs reject. If it ever misses something, report that
            // instead of nothing.
            problems.at(Location::Nowhere, format!("cannot be read: {}", error.message()));
            return None;
        }
    };

    let base = path.parent().unwrap_or_else(|| Path::new(""));
    let mut sources = SecretSources::new(base, text, env);
    let mut config = super::resolve::resolve(&raw, &mut sources, now, problems)?;
    config.fingerprint = sources.fingerprint();
    config.files = std::iter::once(path.to_owned())
        .chain(sources.into_files())
        .collect();
    Some(config)
}

/// Parses the file and records the line of each key. TOML syntax errors end the reading, and all of them are
/// reported.
fn parse(text: &str, problems: &mut Problems) -> Option<Table> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(text);
    let (table, mut errors) = DeTable::parse_recoverable(text);
    note_table(table.get_ref(), "", &lines, &mut problems.origins);
    // Copy nothing out of a broken file: it may hold secrets, and the code wipes only a whole table.
    if errors.is_empty() {
        match Table::deserialize(toml::Deserializer::from(table)) {
            Ok(table) => return Some(table),
            Err(error) => errors.push(error),
        }
    }
    for error in errors {
        // The parser's own `Display` would quote the line, which may hold a secret.
        let location = error
            .span()
            .map_or(Location::Nowhere, |span| Location::Line(lines.line(span.start)));
        problems.at(location, format!("is not TOML: {}", error.message()));
    }
    None
}

fn note_table(table: &DeTable<'_>, path: &str, lines: &Lines, origins: &mut Origins) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        origins.set_line(&path, lines.line(key.span().start));
        note_value(value.get_ref(), &path, lines, origins);
    }
}

fn note_value(value: &DeValue<'_>, path: &str, lines: &Lines, origins: &mut Origins) {
    if let Some(table) = value.as_table() {
        note_table(table, path, lines, origins);
    }
    for (index, element) in value.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        origins.set_line(&path, lines.line(element.span().start));
        note_value(element.get_ref(), &path, lines, origins);
    }
}

/// The byte offsets at which the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(end, _)| end).collect())
    }

    /// The line (counted from 1) of a byte.
    fn line(&self, byte: usize) -> usize {
        self.0.partition_point(|end| *end < byte).saturating_add(1)
    }
}
