//! Checks JSON values against the schemas of an OpenAPI document. It knows the keywords of JSON Schema that
//! `docs/openapi.json` uses, and panics on any other one, so that it skips no rule in silence. (The crates that know
//! all of JSON Schema bring second versions of crates, and a licence, that `deny.toml` refuses.)

use std::path::Path;

use serde_json::{Map, Value};

/// Keywords that say nothing about whether a value is valid.
const ANNOTATIONS: [&str; 3] = ["description", "examples", "xml"];

pub struct Schemas(Value);

impl Schemas {
    pub fn read(path: &Path) -> Self {
        Self(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    /// What stands at a JSON pointer; references on the way are followed.
    pub fn at(&self, pointer: &str) -> &Value {
        self.find(pointer)
            .unwrap_or_else(|| panic!("the document has no {pointer}"))
    }

    pub fn has(&self, pointer: &str) -> bool {
        self.find(pointer).is_some()
    }

    fn find(&self, pointer: &str) -> Option<&Value> {
        let mut at = &self.0;
        for name in pointer.split('/').skip(1) {
            let name = name.replace("~1", "/").replace("~0", "~");
            at = self.resolved(at).get(name)?;
        }
        Some(self.resolved(at))
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value.get("$ref").and_then(Value::as_str);
        reference.map_or(value, |reference| self.at(reference.strip_prefix('#').unwrap()))
    }

    /// Whether a value fits the schema at a JSON pointer; else why not.
    pub fn check(&self, pointer: &str, value: &Value) -> Result<(), String> {
        self.fits(self.at(pointer), value, "")
    }

    /// Checks each schema's own examples, and each message's, and counts them. Every reference is followed on the way.
    pub fn check_examples(&self) -> Result<usize, String> {
        let mut checked = 0;
        let mut rest = vec![&self.0];
        while let Some(value) = rest.pop() {
            match value {
                Value::Array(values) => rest.extend(values),
                Value::Object(object) => {
                    self.resolved(value);
                    if let Some(Value::Array(examples)) = object.get("examples") {
                        for example in examples {
                            self.fits(value, example, "")?;
                            checked += 1;
                        }
                    }
                    if let (Some(Value::Object(examples)), Some(schema)) =
                        (object.get("examples"), object.get("schema"))
                    {
                        for example in examples.values() {
                            self.fits(schema, &example["value"], "")?;
                            checked += 1;
                        }
                    }
                    rest.extend(
                        object
                            .iter()
                            .filter(|(name, _)| *name != "examples")
                            .map(|(_, value)| value),
                    );
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        Ok(checked)
    }

    /// `at` is where the value stands in the message.
    fn fits(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let rules = match schema {
            Value::Object(rules) => rules,
            Value::Bool(true) => return Ok(()),
            _ => return Err(format!("{at}: nothing is allowed here")),
        };
        for (keyword, rule) in rules {
            self.keeps(rules, keyword, rule, value, at).map_err(|why| {
                if why.starts_with('/') {
                    why
                } else {
                    format!("{at}/: {why}")
                }
            })?;
        }
        Ok(())
    }

    fn keeps(
        &self,
        rules: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let holds = match (keyword, value) {
            (keyword, _) if ANNOTATIONS.contains(&keyword) => true,
            ("$ref", _) => {
                let named = self.at(rule.as_str().unwrap().strip_prefix('#').unwrap());
                return self.fits(named, value, at);
            }
            ("allOf", _) => {
                return list(rule)
                    .iter()
                    .try_for_each(|schema| self.fits(schema, value, at));
            }
            ("anyOf", _) => list(rule)
                .iter()
                .any(|schema| self.fits(schema, value, at).is_ok()),
            ("type", _) => match rule {
                Value::Array(types) => types.iter().any(|name| is_of(value, name.as_str().unwrap())),
                name => is_of(value, name.as_str().unwrap()),
            },
            ("enum", _) => list(rule).contains(value),
            ("const", _) => rule == value,
            ("minLength", Value::String(text)) => text.chars().count() as u64 >= rule.as_u64().unwrap(),
            ("maxLength", Value::String(text)) => text.chars().count() as u64 <= rule.as_u64().unwrap(),
            ("pattern", Value::String(text)) => matches(rule.as_str().unwrap(), text),
            ("minimum", Value::Number(number)) => {
                number.as_i64().is_some_and(|n| n >= rule.as_i64().unwrap())
            }
            ("maximum", Value::Number(number)) => {
                number.as_i64().is_some_and(|n| n <= rule.as_i64().unwrap())
            }
            ("required", Value::Object(object)) => list(rule)
                .iter()
                .all(|name| object.contains_key(name.as_str().unwrap())),
            ("properties", Value::Object(object)) => {
                return object
                    .iter()
                    .filter_map(|(name, value)| Some((name, rule.get(name)?, value)))
                    .try_for_each(|(name, schema, value)| self.fits(schema, value, &format!("{at}/{name}")));
            }
            ("additionalProperties", Value::Object(object)) => {
                return object
                    .iter()
                    .filter(|(name, _)| {
                        rules
                            .get("properties")
                            .is_none_or(|known| known.get(name).is_none())
                    })
                    .try_for_each(|(name, value)| self.fits(rule, value, &format!("{at}/{name}")));
            }
            // They say nothing about values of other types.
            (
                "minLength"
                | "maxLength"
                | "pattern"
                | "minimum"
                | "maximum"
                | "required"
                | "properties"
                | "additionalProperties",
                _,
            ) => true,
            (unknown, _) => panic!("the check does not know the keyword {unknown}"),
        };
        if holds {
            Ok(())
        } else {
            Err(format!("{value} is against {keyword}: {rule}"))
        }
    }
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().unwrap()
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        other => panic!("the check does not know the type {other}"),
    }
}

/// A pattern of the form `^[CLASS]{LEAST,MOST}$`, where the class has letters, digits, `_`, ranges, and `-` as its
/// last.
fn matches(pattern: &str, text: &str) -> bool {
    let inner = pattern
        .strip_prefix("^[")
        .and_then(|rest| rest.strip_suffix("}$"));
    let (class, times) = inner.and_then(|rest| rest.split_once("]{")).unwrap();
    let (least, most) = times.split_once(',').unwrap();
    let count = text.chars().count();
    let class: Vec<char> = class.chars().collect();
    let is_in = |c: char| {
        let mut at = 0;
        while at < class.len() {
            if class.get(at + 1) == Some(&'-') && at + 2 < class.len() {
                if (class[at]..=class[at + 2]).contains(&c) {
                    return true;
                }
                at += 3;
            } else if class[at] == c {
                return true;
            } else {
                at += 1;
            }
        }
        false
    };
    (least.parse().unwrap()..=most.parse().unwrap()).contains(&count) && text.chars().all(is_in)
}

#[test]
fn the_check_of_schemas_finds_what_is_wrong() {
    use serde_json::json;
    let schema = json!({
        "components": { "schemas": {
            "No": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,3}$" },
            "Whole": {
                "type": "object",
                "required": ["no"],
                "properties": {
                    "no": { "$ref": "#/components/schemas/No" },
                    "fen": { "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 9 }, { "type": "string", "maxLength": 1 }] },
                    "word": { "enum": ["A", "B"], "minLength": 1 }
                },
                "additionalProperties": { "type": "string" }
            }
        } }
    });
    let schemas = Schemas(schema);
    let check = |value: Value| schemas.check("/components/schemas/Whole", &value);
    for good in [
        json!({ "no": "A-1" }),
        json!({ "no": "_", "fen": 9, "word": "B", "x": "y" }),
        json!({ "no": "a", "fen": "7" }),
    ] {
        assert_eq!(check(good), Ok(()));
    }
    for bad in [
        json!({}),
        json!([]),
        json!({ "no": "" }),
        json!({ "no": "A123" }),
        json!({ "no": "A+1" }),
        json!({ "no": 1 }),
        json!({ "no": "A", "fen": 0 }),
        json!({ "no": "A", "fen": 10 }),
        json!({ "no": "A", "fen": 1.5 }),
        json!({ "no": "A", "fen": "12" }),
        json!({ "no": "A", "word": "C" }),
        json!({ "no": "A", "x": 1 }),
    ] {
        assert!(check(bad.clone()).is_err(), "{bad}");
    }
}
