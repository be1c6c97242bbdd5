//! The JSON Schema of `config.toml`, generated from the structs of `raw` that read the file.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::raw::Raw;

/// The JSON Schema (draft 2020-12) of the configuration file, with descriptions and defaults.
#[must_use]
pub(crate) fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(drop_nulls))
        .into_generator();
    let mut schema = generator.into_root_schema_for::<Raw>();
    schema.insert("title".into(), "payout-sidecar config.toml".into());
    schema.into()
}

/// Drops `null` from the schema: TOML has none, and an optional key is already optional by not being required.
fn drop_nulls(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (name, value) in only {
                schema.ensure_object().entry(name).or_insert(value);
            }
        }
    }
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
