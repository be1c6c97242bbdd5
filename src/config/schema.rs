//! The JSON Schema of `config.toml`, made from the structs that read it.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::Raw;

/// The JSON Schema (draft 2020-12) of the configuration file, descriptions and defaults included.
#[must_use]
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<Raw>());
    drop_nulls(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), "payout-sidecar config.toml".into());
    }
    schema
}

/// TOML has no null: what may be absent is not listed as required, and that says it all.
fn drop_nulls(node: &mut Value) {
    match node {
        Value::Object(object) => {
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            for key in ["anyOf", "oneOf", "enum"] {
                let Some(Value::Array(choices)) = object.get_mut(key) else {
                    continue;
                };
                choices.retain(|choice| !is_null(choice));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove(key);
                    for (name, value) in only {
                        object.entry(name).or_insert(value);
                    }
                }
            }
            object.iter_mut().for_each(|(_, child)| drop_nulls(child));
        }
        Value::Array(children) => children.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_null(choice: &Value) -> bool {
    choice.is_null()
        || choice.get("type").is_some_and(|kind| kind == "null")
        || choice.get("const").is_some_and(Value::is_null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_sections_defaults_and_choices_without_null() {
        let schema = schema();
        assert_eq!(schema["additionalProperties"], false);
        let server = &schema["properties"]["server"]["properties"];
        assert_eq!(server["header_timeout"]["default"], "5s");
        assert_eq!(server["max_body"]["default"], "64KiB");
        assert!(
            server["listen"]["description"]
                .as_str()
                .is_some_and(|text| text.contains("listen"))
        );
        let merchant = &schema["properties"]["merchant"]["items"]["properties"];
        assert_eq!(merchant["api_key"]["format"], "secret");
        assert_eq!(merchant["not_found_after"]["format"], "duration");
        assert!(
            merchant["product"].to_string().contains("transfer-bill"),
            "{}",
            merchant["product"]
        );
        assert!(!schema.to_string().contains("null"), "{schema:#}");
    }
}
