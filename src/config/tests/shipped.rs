//! Tests of the shipped `config.toml`: it is valid, shows every key of the schema, and states the true
//! defaults.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::config::errors::Problems;
use crate::config::shape::{Shape, join};
use crate::config::{IdentitySource, LedgerStore, load};

const SHIPPED: &str = include_str!("../../../config.toml");

/// The file with every commented key and section switched on.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with("[[") || is_setting(rest) => rest.to_owned(),
        Some(_) | None => line.to_owned(),
    };
    SHIPPED.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| {
        key.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

/// Collects every path in a table. All elements of a list of sections are `list[0]`; a secret's source is not
/// entered.
fn paths(value: &Value, shape: &Shape, path: &str, found: &mut BTreeSet<String>) {
    match (value, shape) {
        (Value::Table(table), Shape::Section(keys)) => {
            table
                .iter()
                .for_each(|(key, value)| paths(value, &keys[key], &join(path, key), found));
        }
        (Value::Array(values), Shape::List(element)) if matches!(**element, Shape::Section(_)) => {
            values
                .iter()
                .for_each(|value| paths(value, element, &format!("{path}[0]"), found));
        }
        (_, _) => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn runs_as_it_is_on_embedded_stores() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let config = load(&path, std::iter::empty()).unwrap();
    let root = path.parent().unwrap();
    assert!(
        matches!(&config.identity, IdentitySource::File { path } if *path == root.join("openids.csv") && path.exists())
    );
    assert!(matches!(&config.ledger.store, LedgerStore::File { path } if *path == root.join("payouts.redb")));
    assert_eq!(config.merchants.len(), 1);
    // The one warning: it listens beyond this machine without an access rule.
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn shows_every_key_in_its_right_form() {
    let mut file: Table = uncommented().parse().unwrap();
    let shape = Shape::of_file();
    let mut problems = Problems::default();
    shape.check_file(&mut file, &mut problems);
    assert_eq!(problems.finish().0, []);

    let mut shown = BTreeSet::new();
    paths(&Value::Table(file), &shape, "", &mut shown);
    let known: BTreeSet<String> = shape.paths().into_iter().collect();
    assert!(known.len() > 70, "{}", known.len());
    assert_eq!(
        known.difference(&shown).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}

#[test]
fn a_commented_key_shows_its_default() {
    let schema = crate::config::schema::schema();
    let mut section = String::new();
    let mut compared = 0;
    for line in SHIPPED.lines() {
        let bare = line.trim_start_matches("# ");
        if let Some(header) = bare.strip_prefix('[') {
            section = header
                .trim_start_matches('[')
                .split(']')
                .next()
                .unwrap()
                .to_owned();
            continue;
        }
        if !line.starts_with("# ") || !is_setting(bare) {
            continue;
        }
        let setting: Table = bare.parse().unwrap();
        let (key, value) = setting.iter().next().unwrap();
        let properties = &schema["properties"][&section];
        let properties = properties.get("items").unwrap_or(properties);
        let default = &properties["properties"][key]["default"];
        // Commented merchants are examples: their ids and reports are not the defaults.
        let is_example = ["mch_id", "wx_app_id", "scene_report_infos"].contains(&key.as_str());
        if *default == Json::Null || is_example {
            continue;
        }
        assert_eq!(
            serde_json::to_value(value).unwrap(),
            *default,
            "[{section}] {key}"
        );
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}
