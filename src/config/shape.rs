//! The shape of the file, taken from its schema: which keys exist, and which kind of value each wants.
//!
//! The deserialisation stops at its first mistake. Therefore this module checks the whole file before it,
//! reports all mistakes, and removes the wrong values so that the deserialisation can read the rest. The
//! environment overlay asks it which kind of value a key wants.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::errors::Problems;
use super::nearest::{is_slip, nearest};
use super::secret_ref::SecretRef;
use super::units::{ByteSize, Span};

/// The kind of value that a key wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A section, or an inline table.
    Section(BTreeMap<String, Self>),
    /// A list.
    List(Box<Self>),
    /// A text.
    Text,
    /// One of these texts.
    Choice(Vec<String>),
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A duration.
    Duration,
    /// A size.
    Size,
    /// A secret.
    Secret,
}

impl Shape {
    /// The shape of the whole file.
    pub(super) fn of_file() -> Self {
        Self::read(&super::schema::schema())
    }

    fn read(schema: &Json) -> Self {
        match schema.get("format").and_then(Json::as_str) {
            Some(Span::FORMAT) => return Self::Duration,
            Some(ByteSize::FORMAT) => return Self::Size,
            Some(SecretRef::FORMAT) => return Self::Secret,
            Some(_) | None => {}
        }
        let choices = choices(schema);
        if !choices.is_empty() {
            return Self::Choice(choices);
        }
        match schema.get("type").and_then(Json::as_str) {
            Some("object") => Self::Section(
                schema
                    .get("properties")
                    .and_then(Json::as_object)
                    .into_iter()
                    .flatten()
                    .map(|(key, child)| (key.clone(), Self::read(child)))
                    .collect(),
            ),
            Some("array") => Self::List(Box::new(schema.get("items").map_or(Self::Text, Self::read))),
            Some("integer") => Self::Integer,
            Some("boolean") => Self::Boolean,
            Some(_) | None => Self::Text,
        }
    }

    /// The shape of a child, by key or by index.
    pub(super) fn child(&self, segment: &str) -> Option<&Self> {
        match self {
            Self::Section(keys) => keys.get(segment),
            Self::List(element) => segment.bytes().all(|b| b.is_ascii_digit()).then_some(element),
            Self::Secret => matches!(segment, "env" | "file").then_some(&Self::Text),
            Self::Text | Self::Choice(_) | Self::Integer | Self::Boolean | Self::Duration | Self::Size => {
                None
            }
        }
    }

    /// The path of every key that holds a value, not a section. Elements of a list are `list[0]`.
    pub(super) fn paths(&self) -> Vec<String> {
        self.leaves("").into_iter().map(|(path, _)| path).collect()
    }

    /// The shapes below `path` that are not sections, with their paths.
    pub(super) fn leaves(&self, path: &str) -> Vec<(String, &Self)> {
        if let Self::Section(keys) = self {
            let below = keys
                .iter()
                .flat_map(|(key, child)| child.leaves(&join(path, key)));
            return below.collect();
        }
        if let Self::List(element) = self
            && matches!(**element, Self::Section(_))
        {
            return element.leaves(&format!("{path}[0]"));
        }
        vec![(path.to_owned(), self)]
    }

    /// The rule for a value of this shape, as in "must be …".
    fn rule(&self) -> String {
        match self {
            Self::Section(_) => "must be a section, or a table in braces".into(),
            Self::List(_) => r#"must be a list like ["a", "b"]"#.into(),
            Self::Text => "must be a string in quotes".into(),
            Self::Choice(choices) => {
                let quoted: Vec<_> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
                format!("must be {}", quoted.join(" or "))
            }
            Self::Integer => "must be a whole number without quotes".into(),
            Self::Boolean => "must be true or false without quotes".into(),
            Self::Duration => Span::RULE.into(),
            Self::Size => ByteSize::RULE.into(),
            Self::Secret => SecretRef::RULE.into(),
        }
    }

    /// Reports unknown keys and values of the wrong form, and removes them.
    pub(super) fn check_file(&self, file: &mut Table, problems: &mut Problems) {
        let Self::Section(keys) = self else { return };
        let all = self.paths();
        check_section(keys, file, "", &all, problems);
    }

    /// Checks a value, and returns whether it may stay.
    fn check(&self, value: &mut Value, path: &str, all: &[String], problems: &mut Problems) -> bool {
        match (self, value) {
            (Self::Section(keys), Value::Table(table)) => {
                check_section(keys, table, path, all, problems);
                true
            }
            (Self::List(element), Value::Array(values)) => {
                let mut keep = true;
                for (index, value) in values.iter_mut().enumerate() {
                    keep &= element.check(value, &format!("{path}[{index}]"), all, problems);
                }
                keep
            }
            (Self::Secret, Value::Table(table)) => check_secret_place(table, path, problems),
            (Self::Text | Self::Secret, Value::String(_))
            | (Self::Integer, Value::Integer(_))
            | (Self::Boolean, Value::Boolean(_)) => true,
            (Self::Size, Value::Integer(bytes)) if *bytes >= 0 => true,
            (Self::Duration, Value::String(text)) if Span::parse(text).is_some() => true,
            (Self::Size, Value::String(text)) if ByteSize::parse(text).is_some() => true,
            (Self::Choice(choices), Value::String(text)) if choices.contains(text) => true,
            (Self::Choice(choices), Value::String(text)) => {
                let meant =
                    nearest(text, choices.iter().map(String::as_str)).filter(|meant| is_slip(text, meant));
                let hint = meant.map_or_else(String::new, |meant| format!(": did you mean \"{meant}\"?"));
                problems.error(path, format!("{}, not \"{text}\"{hint}", self.rule()));
                false
            }
            (Self::Duration | Self::Size, Value::String(text)) => {
                problems.error(path, format!("{}, not \"{text}\"", self.rule()));
                false
            }
            // Do not show the value: it may be a secret at the wrong key.
            (_, value) => {
                problems.error(path, format!("{}, not {}", self.rule(), kind(value)));
                false
            }
        }
    }
}

/// The path of a key within a section.
pub(super) fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// The texts that the schema of an enum lists. schemars lists each as a `const` because each variant has a
/// description.
fn choices(schema: &Json) -> Vec<String> {
    let choices = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
    choices
        .filter_map(|choice| choice.get("const")?.as_str().map(str::to_owned))
        .collect()
}

fn check_section(
    keys: &BTreeMap<String, Shape>,
    table: &mut Table,
    path: &str,
    all: &[String],
    problems: &mut Problems,
) {
    table.retain(|key, value| {
        let child_path = join(path, key);
        match keys.get(key) {
            Some(shape) => shape.check(value, &child_path, all, problems),
            None => {
                problems.unknown(&child_path, meant(key, path, keys, all).as_deref());
                false
            }
        }
    });
}

/// The key that the operator probably meant: a neighbour if the key is a typo of it, else a key of another
/// section with the same name or a similar one, else the most similar neighbour.
fn meant(key: &str, section: &str, neighbours: &BTreeMap<String, Shape>, all: &[String]) -> Option<String> {
    let neighbour = nearest(key, neighbours.keys().map(String::as_str));
    if let Some(neighbour) = neighbour.filter(|neighbour| is_slip(key, neighbour)) {
        return Some(join(section, neighbour));
    }
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let elsewhere = all
        .iter()
        .min_by_key(|path| strsim::damerau_levenshtein(key, &last(path)));
    if let Some(elsewhere) = elsewhere.filter(|path| is_slip(key, &last(path))) {
        return Some(elsewhere.clone());
    }
    neighbour.map(|neighbour| join(section, neighbour))
}

/// The table of a secret must hold exactly one of `env` and `file`.
fn check_secret_place(table: &Table, path: &str, problems: &mut Problems) -> bool {
    for key in table.keys() {
        if key != "env" && key != "file" {
            let meant = nearest(key, ["env", "file"]).map(|meant| join(path, meant));
            problems.unknown(&join(path, key), meant.as_deref());
            return false;
        }
    }
    let mut values = table.values();
    match (values.next(), values.next()) {
        (Some(Value::String(_)), None) => true,
        (_, _) => {
            problems.error(path, SecretRef::RULE);
            false
        }
    }
}

/// Names a value's kind, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_from_the_schema() {
        let file = Shape::of_file();
        let at = |path: &[&str]| {
            path.iter()
                .try_fold(&file, |shape, key| shape.child(key))
                .cloned()
        };
        assert_eq!(at(&["server", "header_timeout"]), Some(Shape::Duration));
        assert_eq!(at(&["server", "max_body"]), Some(Shape::Size));
        assert_eq!(
            at(&["access", "allow_from"]),
            Some(Shape::List(Box::new(Shape::Text)))
        );
        assert_eq!(at(&["merchant", "3", "api_key"]), Some(Shape::Secret));
        assert_eq!(
            at(&["merchant", "0", "request_credentials"]),
            Some(Shape::Boolean)
        );
        assert_eq!(
            at(&["ledger", "store"]),
            Some(Shape::Choice(vec!["redis".into(), "file".into()]))
        );
        assert_eq!(
            at(&["merchant", "0", "to"]),
            Some(Shape::Choice(vec!["handler".into(), "wechat".into()]))
        );
        assert_eq!(at(&["server", "tls", "client_ca"]), Some(Shape::Text));
        assert_eq!(at(&["limits", "max_amount"]), Some(Shape::Integer));
        assert_eq!(at(&["server", "nothing"]), None);
        let paths = file.paths();
        assert!(
            paths.contains(&"merchant[0].scene_report_infos[0].info_type".to_owned()),
            "{paths:?}"
        );
        assert!(paths.len() > 70, "{}", paths.len());
    }
}
