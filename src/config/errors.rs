//! What is wrong with a configuration, collected: all mistakes are reported at once, each with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value was given. `Display` is what stands before a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Location {
    /// In the file, on this line (from 1).
    #[error("line {0}: ")]
    Line(usize),
    /// In this environment variable.
    #[error("{0}: ")]
    Variable(String),
    /// Nowhere: something is missing, or the file as a whole is meant.
    #[error("")]
    Nowhere,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{message}")]
pub struct ConfigError {
    /// Where the value was given.
    pub place: Location,
    /// The key's path, e.g. `merchant[0].api_key`; empty when the file as a whole is meant.
    pub path: String,
    /// What is wrong and what to do, the path included. Shows no secret.
    pub message: String,
}

/// Every mistake of one configuration. `Display` shows one per line, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} has {}:{}", file.display(), counted(errors), listed(errors))]
pub struct ConfigErrors {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The mistakes; never empty.
    pub errors: Vec<ConfigError>,
}

fn counted(errors: &[ConfigError]) -> String {
    match errors {
        [_] => "1 mistake".to_owned(),
        all => format!("{} mistakes", all.len()),
    }
}

fn listed(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("\n  {error}")).collect()
}

/// Where each value came from: the line of the file or the variable that set it.
#[derive(Debug, Default)]
pub(super) struct Origins {
    lines: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
}

impl Origins {
    pub(super) fn set_line(&mut self, path: &str, line: usize) {
        self.lines.insert(path.to_owned(), line);
    }

    /// Notes that a variable set this value; it hides what the file says there.
    pub(super) fn set_variable(&mut self, path: &str, name: &str) {
        self.variables.insert(path.to_owned(), name.to_owned());
    }

    /// Whether the file or the environment gives this key.
    pub(super) fn is_given(&self, path: &str) -> bool {
        self.lines.contains_key(path) || self.variables.contains_key(path)
    }

    /// The place of a value, or of the nearest section around it that has one.
    fn place(&self, path: &str) -> Location {
        let mut path = path;
        loop {
            if let Some(name) = self.variables.get(path) {
                return Location::Variable(name.clone());
            }
            if let Some(line) = self.lines.get(path) {
                return Location::Line(*line);
            }
            match path.rfind(['.', '[']).and_then(|end| path.get(..end)) {
                Some(around) => path = around,
                None => return Location::Nowhere,
            }
        }
    }
}

/// Collects mistakes and warnings while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// Where values came from.
    pub(super) origins: Origins,
    errors: Vec<ConfigError>,
    /// Keys that were blamed already. A second complaint about one would only follow from the first.
    blamed: Vec<String>,
    warnings: Vec<String>,
}

impl Problems {
    /// Notes a mistake at `path`, unless one is noted there already.
    pub(super) fn error(&mut self, path: &str, text: impl fmt::Display) {
        if self.is_blamed(path) {
            return;
        }
        self.excuse(path);
        self.push(self.origins.place(path), path, format!("{path}: {text}"));
    }

    /// Notes an unknown key. The key that was meant is not complained about when it is missing.
    pub(super) fn unknown(&mut self, path: &str, meant: Option<&str>) {
        let hint = meant.map_or_else(String::new, |meant| format!(": did you mean {meant}?"));
        self.push(
            self.origins.place(path),
            path,
            format!("unknown key {path}{hint}"),
        );
        if let Some(meant) = meant
            && !self.origins.is_given(meant)
        {
            self.excuse(meant);
        }
    }

    /// Notes a mistake of the file as a whole, or at a place that has no path.
    pub(super) fn at(&mut self, place: Location, message: String) {
        self.push(place, "", message);
    }

    /// Notes something that works, but perhaps not as it was meant.
    pub(super) fn warn(&mut self, path: &str, text: impl fmt::Display) {
        self.warnings.push(format!("{path}: {text}"));
    }

    /// Takes a key out of further complaints.
    fn excuse(&mut self, path: &str) {
        self.blamed.push(path.to_owned());
    }

    fn is_blamed(&self, path: &str) -> bool {
        self.blamed.iter().any(|blamed| {
            path.strip_prefix(blamed.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn push(&mut self, place: Location, path: &str, message: String) {
        self.errors.push(ConfigError {
            place,
            path: path.to_owned(),
            message,
        });
    }

    /// Whether no mistake was found so far.
    pub(super) const fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The mistakes in the file's order (those of the environment and those without a place last), and the warnings.
    pub(super) fn finish(mut self) -> (Vec<ConfigError>, Vec<String>) {
        self.errors.sort_by(|a, b| a.place.cmp(&b.place));
        (self.errors, self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_placed_at_its_section() {
        let mut origins = Origins::default();
        origins.set_line("merchant[0]", 7);
        origins.set_variable("ledger.url", "PAYOUT_SIDECAR__LEDGER__URL");
        assert_eq!(origins.place("merchant[0].api_key"), Location::Line(7));
        assert_eq!(
            origins.place("ledger.url"),
            Location::Variable("PAYOUT_SIDECAR__LEDGER__URL".into())
        );
        assert_eq!(origins.place("ledger.prefix"), Location::Nowhere);
    }

    #[test]
    fn one_key_is_blamed_once() {
        let mut problems = Problems::default();
        problems.error("server.tls", "first");
        problems.error("server.tls.cert", "follows");
        problems.error("server.tls2", "another");
        problems.unknown("ledger.ulr", Some("ledger.url"));
        problems.error("ledger.url", "is missing");
        let (errors, _) = problems.finish();
        let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "server.tls: first",
                "server.tls2: another",
                "unknown key ledger.ulr: did you mean ledger.url?"
            ]
        );
    }
}
