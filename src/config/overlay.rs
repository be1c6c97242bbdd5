//! Applies the environment over the file: `PAYOUT_SIDECAR__LEDGER__URL` sets `ledger.url`, whatever the file
//! says.
//!
//! Names are case-insensitive, `__` separates keys, and a number selects an element of a list
//! (`PAYOUT_SIDECAR__MERCHANT__0__API_KEY`; the number after the last one appends an element). If the key wants
//! a text, the value stays a text, so a merchant number of digits needs no quotes. The overlay parses lists,
//! tables, numbers and `true`/`false` as TOML. A variable can also name the source of a secret:
//! `PAYOUT_SIDECAR__ACCESS__TOKEN__FILE=/run/secrets/token`.

use std::collections::BTreeMap;

use toml::{Table, Value};
use zeroize::Zeroizing;

use super::errors::{Location, Problems};
use super::shape::{Shape, join};

/// The prefix of the sidecar's variables, in lower case.
pub(super) const PREFIX: &str = "payout_sidecar__";

/// One step down from a section: into a key, or into an element of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Element(usize),
    Key(String),
}

/// Sets the values of the environment, and records their origin.
pub(super) fn overlay(
    file: &mut Table,
    shape: &Shape,
    env: &BTreeMap<String, Zeroizing<String>>,
    problems: &mut Problems,
) {
    let mut settings: BTreeMap<Vec<Step>, (&str, &str)> = BTreeMap::new();
    for (name, text) in env {
        let lower = name.to_ascii_lowercase();
        let Some(keys) = lower.strip_prefix(PREFIX) else {
            continue;
        };
        let Some(steps) = steps(keys, shape) else {
            let form = "is not the name of a key: write PAYOUT_SIDECAR__SECTION__KEY";
            problems.at(Location::Variable(name.clone()), form.into());
            continue;
        };
        if let Some((other, _)) = settings.insert(steps, (name, text)) {
            let twice = format!("sets the same key as {other}: unset one of them");
            problems.at(Location::Variable(name.clone()), twice);
        }
    }
    let mut whole = Value::Table(std::mem::take(file));
    // The map's order appends element 0 before element 1, and 9 before 10.
    for (steps, (name, text)) in settings {
        let setting = Setting { name, text };
        setting.put(&mut whole, Some(shape), "", &steps, problems);
    }
    if let Value::Table(table) = whole {
        *file = table;
    }
}

/// The steps that a name spells. A number is an element only if the shape has a list there. `None`: an empty
/// key.
fn steps(keys: &str, shape: &Shape) -> Option<Vec<Step>> {
    let mut at = Some(shape);
    keys.split("__")
        .map(|key| {
            let step = match (at, key.parse()) {
                (Some(Shape::List(_)), Ok(index)) => Step::Element(index),
                (_, _) => Step::Key(key.to_owned()),
            };
            at = at.and_then(|shape| shape.child(key));
            (!key.is_empty()).then_some(step)
        })
        .collect()
}

/// A variable that sets a key.
struct Setting<'a> {
    name: &'a str,
    text: &'a str,
}

impl Setting<'_> {
    /// Sets the value `steps` below `at`, whose path is `path`. If a section must be at some step and something
    /// else (or the text of a secret) is there, a section replaces it; `check_file` reports a wrong form.
    fn put(
        &self,
        at: &mut Value,
        wants: Option<&Shape>,
        path: &str,
        steps: &[Step],
        problems: &mut Problems,
    ) {
        if steps.is_empty() || !(path.is_empty() || problems.origins.is_given(path)) {
            problems.origins.set_variable(path, self.name);
        }
        match steps {
            [] => *at = value(self.text, wants),
            [Step::Key(key), rest @ ..] => {
                if wants == Some(&Shape::Secret) || !at.is_table() {
                    *at = Value::Table(Table::new());
                }
                let child = wants.and_then(|shape| shape.child(key));
                if let Value::Table(table) = at {
                    let next = table.entry(key.as_str()).or_insert(EMPTY);
                    self.put(next, child, &join(path, key), rest, problems);
                }
            }
            [Step::Element(index), rest @ ..] => {
                if !at.is_array() {
                    *at = Value::Array(Vec::new());
                }
                let child = wants.and_then(|shape| shape.child(&index.to_string()));
                let Value::Array(values) = at else { return };
                let count = values.len();
                if *index == count {
                    values.push(EMPTY);
                }
                match values.get_mut(*index) {
                    Some(next) => self.put(next, child, &format!("{path}[{index}]"), rest, problems),
                    None => problems.at(
                        Location::Variable(self.name.to_owned()),
                        format!("{path} has {count} elements: the next is number {count}, not {index}"),
                    ),
                }
            }
        }
    }
}

/// Placeholder for a new value; the next step replaces it.
const EMPTY: Value = Value::Boolean(false);

/// Converts a text to the kind of value that a key of this shape wants.
fn value(text: &str, wants: Option<&Shape>) -> Value {
    let as_text = || Value::String(text.to_owned());
    match wants {
        Some(Shape::Integer) => text.trim().parse().map_or_else(|_| as_text(), Value::Integer),
        Some(Shape::Boolean) => text.trim().parse().map_or_else(|_| as_text(), Value::Boolean),
        Some(Shape::List(_) | Shape::Section(_)) => read_toml(text).unwrap_or_else(as_text),
        Some(Shape::Secret) => read_toml(text)
            .filter(|value| {
                value
                    .as_table()
                    .is_some_and(|table| table.keys().all(|key| key == "env" || key == "file"))
            })
            .unwrap_or_else(as_text),
        Some(Shape::Text | Shape::Choice(_) | Shape::Duration | Shape::Size) | None => as_text(),
    }
}

/// Parses a TOML list or inline table.
fn read_toml(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {}", text.trim())).ok()?;
    (table.len() == 1).then(|| table.remove("value")).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(file: &str, env: &[(&str, &str)]) -> (Table, Problems) {
        let mut table: Table = file.parse().unwrap();
        let env = env
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Zeroizing::new((*text).to_owned())))
            .collect();
        let mut problems = Problems::default();
        overlay(&mut table, &Shape::of_file(), &env, &mut problems);
        (table, problems)
    }

    #[test]
    fn a_value_takes_the_kind_that_its_key_wants() {
        let (table, problems) = overlaid(
            "[ledger]\nwait_replicas = 0\n",
            &[
                ("PAYOUT_SIDECAR__LEDGER__WAIT_REPLICAS", "1"),
                ("PAYOUT_SIDECAR__ACCESS__ALLOW_FROM", r#"["10.0.0.0/8"]"#),
                ("payout_sidecar__answer__reveal_openid", "true"),
                ("PAYOUT_SIDECAR__SERVER__MAX_BODY", "1024"),
                ("PAYOUT_SIDECAR__SERVER__TLS", r#"{ cert = "a", key = "b" }"#),
                ("PAYOUT_SIDECAR__LEDGER__URL", "redis://h/0"),
                ("UNRELATED__LEDGER__URL", "x"),
                ("PAYOUT_SIDECAR_SERVICE_HOST", "10.0.0.1"),
            ],
        );
        let expected: Table = r#"
            [ledger]
            wait_replicas = 1
            url = "redis://h/0"
            [access]
            allow_from = ["10.0.0.0/8"]
            [answer]
            reveal_openid = true
            [server]
            max_body = "1024"
            tls = { cert = "a", key = "b" }
        "#
        .parse()
        .unwrap();
        assert_eq!(table, expected);
        assert!(problems.is_clean());
    }

    #[test]
    fn list_elements_are_chosen_by_number_and_added_in_order() {
        let mut env = vec![(
            "PAYOUT_SIDECAR__MERCHANT__0__API_KEY".to_owned(),
            "{ env = \"K\" }".to_owned(),
        )];
        env.extend((1..=10).map(|n| {
            (
                format!("PAYOUT_SIDECAR__MERCHANT__{n}__MCH_ID"),
                format!("190000010{n}"),
            )
        }));
        let env: Vec<(&str, &str)> = env
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let (table, problems) = overlaid("[[merchant]]\nmch_id = \"1\"\napi_key = \"old\"\n", &env);
        assert!(problems.is_clean(), "{problems:?}");
        let merchants = table["merchant"].as_array().unwrap();
        assert_eq!(merchants.len(), 11);
        assert_eq!(merchants[0]["api_key"]["env"].as_str(), Some("K"));
        assert_eq!(merchants[0]["mch_id"].as_str(), Some("1"));
        assert_eq!(merchants[10]["mch_id"].as_str(), Some("19000001010"));
    }

    #[test]
    fn a_gap_in_a_list_and_a_doubled_or_empty_name_are_mistakes() {
        let (_, problems) = overlaid(
            "",
            &[
                ("PAYOUT_SIDECAR__MERCHANT__1__MCH_ID", "1"),
                ("PAYOUT_SIDECAR__", "1"),
                ("PAYOUT_SIDECAR__LEDGER__URL", "a"),
                ("payout_sidecar__ledger__url", "b"),
            ],
        );
        let (errors, _) = problems.finish();
        let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "PAYOUT_SIDECAR__: is not the name of a key: write PAYOUT_SIDECAR__SECTION__KEY",
                "PAYOUT_SIDECAR__MERCHANT__1__MCH_ID: merchant has 0 elements: the next is number 0, not 1",
                "payout_sidecar__ledger__url: sets the same key as PAYOUT_SIDECAR__LEDGER__URL: unset one of them",
            ]
        );
    }

    #[test]
    fn a_secrets_place_replaces_the_one_in_the_file() {
        let (table, _) = overlaid(
            "[access]\ntoken = { env = \"T\" }\n[admin]\ntoken = \"t\"\n",
            &[
                ("PAYOUT_SIDECAR__ACCESS__TOKEN__FILE", "/t"),
                ("PAYOUT_SIDECAR__ADMIN__TOKEN__ENV", "T"),
                ("PAYOUT_SIDECAR__ACCESS__SIGN_KEY", "{not a table}"),
            ],
        );
        assert_eq!(
            table["access"]["token"],
            Value::Table("file = \"/t\"".parse().unwrap())
        );
        assert_eq!(
            table["admin"]["token"],
            Value::Table("env = \"T\"".parse().unwrap())
        );
        assert_eq!(table["access"]["sign_key"].as_str(), Some("{not a table}"));
    }
}
