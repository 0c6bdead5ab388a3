//! Checks payloads against a kind's JSON Schema and says which field is at fault.

use serde_json::Value;

use crate::base::error::FieldError;

/// A compiled JSON Schema (2020-12).
pub struct Schema {
    document: Value,
    compiled: jsonschema::Validator,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// A sentence, if it is not a valid JSON Schema.
    pub fn new(document: Value) -> Result<Self, String> {
        let compiled = jsonschema::validator_for(&document).map_err(|e| format!("is not a valid JSON Schema: {e}"))?;
        Ok(Self { document, compiled })
    }

    /// The schema as JSON.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Every way in which `value` breaks the schema, at most ten, with the field's path below `payload`.
    #[must_use]
    pub fn check(&self, value: &Value) -> Vec<FieldError> {
        if self.compiled.is_valid(value) {
            return Vec::new();
        }
        self.compiled
            .iter_errors(value)
            .take(10)
            .map(|e| FieldError::new(dotted(&e.instance_path().to_string()), e.to_string()))
            .collect()
    }
}

/// `/lines/3/price` → `payload.lines[3].price`, as clients write paths.
fn dotted(pointer: &str) -> String {
    let mut out = String::from("payload");
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty() {
            out.push_str(&format!("[{part}]"));
        } else {
            out.push('.');
            out.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_field() {
        let schema = Schema::new(serde_json::json!({
            "type": "object", "additionalProperties": false, "required": ["n"],
            "properties": {"n": {"type": "integer"}, "list": {"type": "array", "items": {"type": "string"}}}
        }))
        .unwrap();
        assert!(schema.check(&serde_json::json!({"n": 1})).is_empty());
        let fields = |v| schema.check(&v).into_iter().map(|e| e.field).collect::<Vec<_>>();
        assert_eq!(fields(serde_json::json!({"n": "x"})), ["payload.n"]);
        assert_eq!(fields(serde_json::json!({"n": 1, "list": ["a", 2]})), ["payload.list[1]"]);
        assert_eq!(fields(serde_json::json!({})), ["payload"]);
    }
}
