//! What an item is, which values it may hold, and how a patch changes it.
//!
//! Limits live here, next to the type, so that every way in (HTTP, import, a job) is bound by the same ones.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::{clock::Timestamp, error::FieldError, id::ItemId, merge::merge};

/// Most characters a name may have.
pub const NAME_MAX: usize = 200;
/// Most characters a description may have.
pub const DESCRIPTION_MAX: usize = 10_000;
/// Most bytes the metadata may have when written as JSON.
pub const METADATA_MAX_BYTES: usize = 64 * 1024;
/// Most levels of objects and arrays in the metadata, itself included.
pub const METADATA_MAX_DEPTH: usize = 32;

/// A named record with free metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Names the item; ordered as items were made.
    pub id: ItemId,
    /// 1 to [`NAME_MAX`] characters, not blank, no control characters.
    pub name: String,
    /// At most [`DESCRIPTION_MAX`] characters.
    pub description: Option<String>,
    /// Whatever the client wants to keep with it, within the limits above.
    pub metadata: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// 1 at first, one more with each change.
    pub version: u64,
}

/// What a client says to make an item, or to replace all of one.
#[derive(Clone, Debug, PartialEq)]
pub struct NewItem {
    /// See [`Item::name`].
    pub name: String,
    /// See [`Item::description`].
    pub description: Option<String>,
    /// See [`Item::metadata`].
    pub metadata: Map<String, Value>,
}

/// A change to an item with the meaning of RFC 7396 (JSON Merge Patch): what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemPatch {
    /// The new name. A name cannot be removed.
    pub name: Option<String>,
    /// The new description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Merged into the metadata: a null member is removed, objects are merged, anything else replaces what was there.
    /// `Some(None)` empties the metadata.
    pub metadata: Option<Option<Map<String, Value>>>,
}

impl NewItem {
    /// Checks every field.
    ///
    /// # Errors
    /// All faults found, each with its field.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut faults = Vec::new();
        let mut note = |field: &str, checked: Result<(), String>| {
            if let Err(message) = checked {
                faults.push(FieldError::new(field, message));
            }
        };
        note("name", check_name(&self.name));
        note("description", self.description.as_deref().map_or(Ok(()), check_description));
        note("metadata", check_metadata(&self.metadata));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

impl ItemPatch {
    /// What `item` becomes under this patch. The result is unchecked.
    #[must_use]
    pub fn applied_to(&self, item: &Item) -> NewItem {
        let mut metadata = item.metadata.clone();
        match &self.metadata {
            None => {}
            Some(None) => metadata.clear(),
            Some(Some(patch)) => merge(&mut metadata, patch),
        }
        NewItem {
            name: self.name.clone().unwrap_or_else(|| item.name.clone()),
            description: self.description.clone().unwrap_or_else(|| item.description.clone()),
            metadata,
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("must not be blank".to_owned());
    }
    if name.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    within(name, NAME_MAX)
}

fn check_description(description: &str) -> Result<(), String> {
    if description.contains('\0') {
        return Err("must not contain the character U+0000".to_owned());
    }
    within(description, DESCRIPTION_MAX)
}

fn within(text: &str, max: usize) -> Result<(), String> {
    let n = text.chars().count();
    if n > max { Err(format!("has {n} characters, at most {max} are allowed")) } else { Ok(()) }
}

fn check_metadata(metadata: &Map<String, Value>) -> Result<(), String> {
    check_object(metadata, METADATA_MAX_DEPTH)?;
    let mut size = Size(0);
    // Writing to a counter cannot fail, and JSON values always serialise.
    serde_json::to_writer(&mut size, metadata).map_err(|e| e.to_string())?;
    if size.0 > METADATA_MAX_BYTES {
        return Err(format!("has {} bytes as JSON, at most {METADATA_MAX_BYTES} are allowed", size.0));
    }
    Ok(())
}

fn check_object(object: &Map<String, Value>, levels: usize) -> Result<(), String> {
    if levels == 0 {
        return Err(format!("is nested more than {METADATA_MAX_DEPTH} levels deep"));
    }
    for (key, value) in object {
        if key.contains('\0') {
            return Err("must not have a key with the character U+0000".to_owned());
        }
        check_value(value, levels - 1)?;
    }
    Ok(())
}

fn check_value(value: &Value, levels: usize) -> Result<(), String> {
    match value {
        Value::Object(object) => check_object(object, levels),
        Value::Array(_) if levels == 0 => Err(format!("is nested more than {METADATA_MAX_DEPTH} levels deep")),
        Value::Array(values) => values.iter().try_for_each(|v| check_value(v, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Counts bytes instead of keeping them.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is not an object"),
        }
    }

    fn new(name: &str) -> NewItem {
        NewItem { name: name.to_owned(), description: None, metadata: Map::new() }
    }

    fn nested(depth: usize) -> Map<String, Value> {
        let mut value = json!({});
        for _ in 1..depth {
            value = json!({ "a": value });
        }
        object(value)
    }

    #[test]
    fn limits_hold_at_their_edges() {
        assert!(new(&"ü".repeat(200)).check().is_ok());
        assert!(NewItem { description: Some("d\n".repeat(5000)), ..new("x") }.check().is_ok());
        assert!(NewItem { metadata: nested(32), ..new("x") }.check().is_ok());
        let fits = object(json!({ "a": "x".repeat(METADATA_MAX_BYTES - 8) }));
        assert!(NewItem { metadata: fits, ..new("x") }.check().is_ok());
        let bad = [
            (new(""), "name"),
            (new(" \u{3000}"), "name"),
            (new("a\0b"), "name"),
            (new("a\nb"), "name"),
            (new(&"x".repeat(201)), "name"),
            (NewItem { description: Some("d".repeat(10_001)), ..new("x") }, "description"),
            (NewItem { description: Some("\0".to_owned()), ..new("x") }, "description"),
            (NewItem { metadata: nested(33), ..new("x") }, "metadata"),
            (NewItem { metadata: object(json!({ "a": "x".repeat(METADATA_MAX_BYTES - 7) })), ..new("x") }, "metadata"),
            (NewItem { metadata: object(json!({ "a": [{ "k\0": 1 }] })), ..new("x") }, "metadata"),
        ];
        for (item, field) in bad {
            let faults = item.check().unwrap_err();
            assert_eq!(faults.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), [field], "{faults:?}");
        }
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let item = NewItem { description: Some("\0".to_owned()), metadata: nested(40), ..new("") };
        assert_eq!(item.check().unwrap_err().len(), 3);
    }
}
