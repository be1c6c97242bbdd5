//! A secret as the file states it (a text, or its source), and how the sidecar resolves it to a [`Secret`].
//!
//! Neither form is `Serialize`, and `Debug` shows no secret. Messages name the source of a secret, never its
//! text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, DefaultHasher, Hash, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use toml::Value;
use zeroize::{Zeroize as _, Zeroizing};

use payout_domain::secret::Secret;

/// A secret text, or its source: `"text"`, `{ env = "NAME" }` or `{ file = "path" }`.
#[derive(Debug)]
pub(super) enum SecretRef {
    /// The secret itself.
    Text(Secret),
    /// The name of an environment variable.
    Env(String),
    /// The path of a file, relative to the directory of the configuration file.
    File(String),
}

impl SecretRef {
    /// The schema's `format` of a secret.
    pub(super) const FORMAT: &'static str = "secret";

    /// The forms of a secret, for messages.
    pub(super) const RULE: &'static str = r#"must be a string, { env = "NAME" } or { file = "path" }"#;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Reference {
    Env(String),
    File(String),
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde's untagged enums would make copies that nobody wipes, and their error message could repeat the
        // text.
        let place = match Value::deserialize(deserializer) {
            Ok(Value::String(text)) => return Ok(Self::Text(Secret::new(text))),
            other => other
                .map_err(drop)
                .and_then(|place| Reference::deserialize(place).map_err(drop)),
        };
        match place {
            Ok(Reference::Env(name)) => Ok(Self::Env(name)),
            Ok(Reference::File(path)) => Ok(Self::File(path)),
            Err(()) => Err(serde::de::Error::custom(Self::RULE)),
        }
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let place = |key: &str, description: &str| {
            json_schema!({
                "type": "object",
                "properties": { key: { "type": "string", "description": description } },
                "required": [key],
                "additionalProperties": false
            })
        };
        json_schema!({
            "format": Self::FORMAT,
            "anyOf": [
                { "type": "string" },
                place("env", "Name of an environment variable that holds the secret."),
                place("file", "Path of a file that holds the secret; one newline at its end is cut.")
            ]
        })
    }
}

/// One seed per process: fingerprints are comparable within the process, and reveal nothing of the secrets in
/// them.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A hash that is equal for equal values within one process, and reveals nothing of the secrets in them.
pub fn fingerprint(value: &impl Hash) -> u64 {
    SEED.hash_one(value)
}

/// Resolves secrets and files, and remembers which files it read.
pub(super) struct SecretSources {
    base: PathBuf,
    env: BTreeMap<String, Zeroizing<String>>,
    files: Vec<PathBuf>,
    content: DefaultHasher,
}

impl SecretSources {
    /// `base` is the directory of the configuration file, `text` its content.
    pub(super) fn new(base: &Path, text: &str, env: BTreeMap<String, Zeroizing<String>>) -> Self {
        let mut content = SEED.build_hasher();
        text.hash(&mut content);
        Self {
            base: base.to_owned(),
            env,
            files: Vec::new(),
            content,
        }
    }

    /// A hash of everything that was read so far. Equal for equal content within one process.
    pub(super) fn fingerprint(&self) -> u64 {
        self.content.finish()
    }

    /// Resolves a path relative to the configuration file's directory.
    pub(super) fn locate(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Every file that a key referred to so far, readable or not. The watcher watches these.
    pub(super) fn into_files(mut self) -> Vec<PathBuf> {
        self.files.sort();
        self.files.dedup();
        self.files
    }

    /// Reads a file as bytes, or returns why it cannot.
    pub(super) fn read(&mut self, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        let place = self.locate(path);
        let read = std::fs::read(&place);
        let name = place.display().to_string();
        (&place, read.as_ref().ok()).hash(&mut self.content);
        self.files.push(place);
        match read {
            Ok(bytes) if bytes.is_empty() => Err(format!("the file {name} is empty: put the value there")),
            Ok(bytes) => Ok(Zeroizing::new(bytes)),
            Err(error) => Err(format!(
                "the file {name} cannot be read ({}): check the path and its permissions",
                error.kind()
            )),
        }
    }

    /// Reads a file as text and strips one newline at its end, or returns why it cannot.
    pub(super) fn read_text(&mut self, path: &str) -> Result<Secret, String> {
        let bytes = self.read(path)?;
        let name = self.locate(path).display().to_string();
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(format!(
                "the file {name} is not UTF-8 text: put the value there as text"
            ));
        };
        let cut = text
            .strip_suffix("\r\n")
            .or_else(|| text.strip_suffix('\n'))
            .unwrap_or(text);
        if cut.trim().is_empty() {
            return Err(format!("the file {name} is empty: put the value there"));
        }
        Ok(Secret::new(cut.to_owned()))
    }

    /// A variable of the environment. It may hold a secret.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(|text| text.as_str())
    }

    /// Returns the secret itself, or why there is none.
    pub(super) fn resolve(&mut self, secret: &SecretRef) -> Result<Secret, String> {
        match secret {
            SecretRef::Text(text) if text.expose().trim().is_empty() => {
                Err("is empty: give the value, or leave the key out".into())
            }
            SecretRef::Text(text) => Ok(text.clone()),
            SecretRef::File(path) => self.read_text(path),
            SecretRef::Env(name) => match self.env.get(name).map(|text| text.as_str()) {
                None => Err(format!(
                    "the environment variable {name} is not set: set it, or use {{ file = \"path\" }}"
                )),
                Some(text) if text.trim().is_empty() => Err(format!(
                    "the environment variable {name} is empty: put the value there"
                )),
                Some(text) if text.contains(char::REPLACEMENT_CHARACTER) => Err(format!(
                    "the environment variable {name} is not UTF-8 text: put the value there as text"
                )),
                Some(text) => Ok(Secret::new(text.to_owned())),
            },
        }
    }
}

/// Wipes every text of a value: the file may hold secrets, and the structs have their own copies by now.
pub(super) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| wipe(value)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(dir: &Path, env: &[(&str, &str)]) -> SecretSources {
        let env = env
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Zeroizing::new((*text).to_owned())))
            .collect();
        SecretSources::new(dir, "", env)
    }

    #[test]
    fn a_file_loses_one_newline_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        for (written, read) in [
            ("k3y", "k3y"),
            ("k3y\n", "k3y"),
            ("k3y\r\n", "k3y"),
            ("k3y\n\n", "k3y\n"),
        ] {
            std::fs::write(dir.path().join("s"), written).unwrap();
            let mut sources = sources(dir.path(), &[]);
            let secret = sources.resolve(&SecretRef::File("s".into())).unwrap();
            assert_eq!(secret.expose(), read, "{written:?}");
            assert_eq!(sources.into_files(), [dir.path().join("s")]);
        }
    }

    #[test]
    fn what_is_missing_or_empty_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        let mut sources = sources(dir.path(), &[("EMPTY", ""), ("SET", "v")]);
        let mut refusal = |secret: SecretRef| sources.resolve(&secret).unwrap_err();
        assert!(
            refusal(SecretRef::Env("GONE".into())).starts_with("the environment variable GONE is not set")
        );
        assert!(
            refusal(SecretRef::Env("EMPTY".into())).starts_with("the environment variable EMPTY is empty")
        );
        assert!(refusal(SecretRef::File("gone".into())).contains("gone cannot be read"));
        assert!(refusal(SecretRef::File("empty".into())).contains("empty is empty"));
        assert!(refusal(SecretRef::Text(Secret::new(" ".into()))).starts_with("is empty"));
        assert_eq!(
            sources.resolve(&SecretRef::Env("SET".into())).unwrap().expose(),
            "v"
        );
    }

    #[test]
    fn the_text_is_in_no_debug_output() {
        let secret: SecretRef = Value::String("hush".into()).try_into().unwrap();
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
