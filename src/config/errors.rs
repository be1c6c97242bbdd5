//! Collects the mistakes of a configuration, each with its location, so that one run reports all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where the operator set a value. `Display` gives the prefix of a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Location {
    /// In the file, on this line (counted from 1).
    #[error("line {0}: ")]
    Line(usize),
    /// In this environment variable.
    #[error("{0}: ")]
    Variable(String),
    /// Nowhere: a key is missing, or the message is about the file as a whole.
    #[error("")]
    Nowhere,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}{message}")]
pub struct ConfigError {
    /// Where the operator set the value.
    pub location: Location,
    /// The key's path, e.g. `merchant[0].api_key`. Empty if the message is about the file as a whole.
    pub path: String,
    /// What is wrong and what to do, path included. Contains no secret.
    pub message: String,
}

/// All mistakes of one configuration. `Display` shows one per line, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} has {}:{}", file.display(), counted(errors), listed(errors))]
pub struct ConfigErrors {
    /// The file, as the caller named it.
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

/// The origin of each value: the line of the file, or the environment variable that set it.
#[derive(Debug, Default)]
pub(super) struct Origins {
    lines: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
}

impl Origins {
    pub(super) fn set_line(&mut self, path: &str, line: usize) {
        self.lines.insert(path.to_owned(), line);
    }

    /// Records that a variable set this value. The variable hides the file's value.
    pub(super) fn set_variable(&mut self, path: &str, name: &str) {
        self.variables.insert(path.to_owned(), name.to_owned());
    }

    /// Whether the file or the environment gives this key.
    pub(super) fn is_given(&self, path: &str) -> bool {
        self.lines.contains_key(path) || self.variables.contains_key(path)
    }

    /// The location of a value, or of the nearest enclosing section that has one.
    fn location(&self, path: &str) -> Location {
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

/// Collects mistakes and warnings while the configuration is read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// The origins of the values.
    pub(super) origins: Origins,
    errors: Vec<ConfigError>,
    /// Keys with a recorded mistake. A second mistake of the same key would only follow from the first.
    blamed: Vec<String>,
    warnings: Vec<String>,
}

impl Problems {
    /// Records a mistake at `path`, unless the list has one there already.
    pub(super) fn error(&mut self, path: &str, text: impl fmt::Display) {
        if self.is_blamed(path) {
            return;
        }
        self.excuse(path);
        self.push(self.origins.location(path), path, format!("{path}: {text}"));
    }

    /// Records an unknown key. Suppresses the "is missing" of the key that the operator probably meant.
    pub(super) fn unknown(&mut self, path: &str, meant: Option<&str>) {
        let hint = meant.map_or_else(String::new, |meant| format!(": did you mean {meant}?"));
        self.push(
            self.origins.location(path),
            path,
            format!("unknown key {path}{hint}"),
        );
        if let Some(meant) = meant
            && !self.origins.is_given(meant)
        {
            self.excuse(meant);
        }
    }

    /// Records a mistake of the file as a whole, or at a location without a path.
    pub(super) fn at(&mut self, location: Location, message: String) {
        self.push(location, "", message);
    }

    /// Records a warning: the configuration works, but perhaps not as the operator meant it.
    pub(super) fn warn(&mut self, path: &str, text: impl fmt::Display) {
        self.warnings.push(format!("{path}: {text}"));
    }

    /// Suppresses further mistakes of this key.
    fn excuse(&mut self, path: &str) {
        self.blamed.push(path.to_owned());
    }

    fn is_blamed(&self, path: &str) -> bool {
        self.blamed.iter().any(|blamed| {
            path.strip_prefix(blamed.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn push(&mut self, location: Location, path: &str, message: String) {
        self.errors.push(ConfigError {
            location,
            path: path.to_owned(),
            message,
        });
    }

    /// Whether the list of mistakes is empty.
    pub(super) const fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Returns the mistakes and the warnings. Mistakes come in the file's order, then those of the environment,
    /// then those without a location.
    pub(super) fn finish(mut self) -> (Vec<ConfigError>, Vec<String>) {
        self.errors.sort_by(|a, b| a.location.cmp(&b.location));
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
        assert_eq!(origins.location("merchant[0].api_key"), Location::Line(7));
        assert_eq!(
            origins.location("ledger.url"),
            Location::Variable("PAYOUT_SIDECAR__LEDGER__URL".into())
        );
        assert_eq!(origins.location("ledger.prefix"), Location::Nowhere);
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
