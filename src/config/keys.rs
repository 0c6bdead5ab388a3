//! The keys that exist and the type of each, read from the defaults, so that there is no second list to keep.
//!
//! Each layer is checked on its own before it is merged: only then can a fault name the layer it stands in.

use std::collections::BTreeMap;

use config::{FileFormat, Map, Source, Value, ValueKind};

use super::{DEFAULT_TOML, Error};

/// Section whose subsections are named by the user.
const QUEUES: &str = "queues";
/// Keys of such a subsection.
const QUEUE_KEYS: [(&str, Kind); 1] = [("depth_limit", Kind::Number)];

/// Keys whose value is never quoted, however wrong it is.
const SECRETS: [&str; 3] = ["password", "dkim_private_key", "vapid_private_key"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Switch,
    List,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value.kind {
            ValueKind::Boolean(_) => Self::Switch,
            ValueKind::I64(_) => Self::Number,
            ValueKind::Array(_) => Self::List,
            _ => Self::Text,
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Text => "must be text in quotes, with a unit if it is a time (\"15s\") or a size (\"1MiB\")",
            Self::Number => "must be a whole number without quotes",
            Self::Switch => "must be true or false, without quotes",
            Self::List => "must be a list of texts in quotes, such as [\"default\", \"heavy:3\"]",
        }
    }
}

/// Every known key: section → key → type.
pub(super) struct Schema(BTreeMap<String, BTreeMap<String, Kind>>);

/// One layer: its values, and where each of them stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
    /// Key → name of the place, for sentences.
    pub(super) origins: Vec<(String, String)>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.clone())
    }
}

impl Schema {
    /// Reads the compiled-in defaults: the schema, and the bottom layer.
    pub(super) fn from_defaults() -> Result<(Self, Layer), Error> {
        let origin = "the compiled-in defaults";
        let values = parse(origin, DEFAULT_TOML)?;
        let sections = values.iter().map(|(section, value)| {
            let keys = match &value.kind {
                ValueKind::Table(table) => table.iter().map(|(key, value)| (key.clone(), Kind::of(value))).collect(),
                _ => BTreeMap::new(),
            };
            (section.clone(), keys)
        });
        let schema = Self(sections.collect());
        let layer = schema.file_layer(origin, DEFAULT_TOML)?;
        Ok((schema, layer))
    }

    /// Checks the TOML of one file.
    pub(super) fn file_layer(&self, origin: &str, text: &str) -> Result<Layer, Error> {
        let mut layer = Layer { values: parse(origin, text)?, origins: Vec::new() };
        // Sorted, so that of several faults the same one is told each time.
        let mut sections: Vec<(&String, &mut Value)> = layer.values.iter_mut().collect();
        sections.sort_by_key(|(name, _)| *name);
        let mut origins = Vec::new();
        for (section, value) in sections {
            if !self.0.contains_key(section) {
                return Err(self.unknown_section(section, origin));
            }
            for (key, value) in entries(section, value, origin)? {
                if section == QUEUES {
                    let path = format!("{QUEUES}.{key}");
                    for (sub, value) in entries(&path, value, origin)? {
                        self.check(&[section, key, sub], value, origin)?;
                        origins.push((format!("{path}.{sub}"), origin.to_owned()));
                    }
                } else {
                    self.check(&[section, key], value, origin)?;
                    origins.push((format!("{section}.{key}"), origin.to_owned()));
                }
            }
        }
        layer.origins = origins;
        Ok(layer)
    }

    /// Checks a value of a file, and splits a list that is written as one text.
    fn check(&self, path: &[&str], value: &mut Value, origin: &str) -> Result<(), Error> {
        let kind = self.kind(path).ok_or_else(|| self.unknown_key(path, origin))?;
        let fits = match (kind, &value.kind) {
            (Kind::Text, ValueKind::String(_))
            | (Kind::Number, ValueKind::I64(_))
            | (Kind::Switch, ValueKind::Boolean(_)) => true,
            (Kind::List, ValueKind::Array(list)) => list.iter().all(|v| matches!(v.kind, ValueKind::String(_))),
            (Kind::List, ValueKind::String(text)) => {
                *value = split(text);
                true
            }
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => {
                // Lists and sections are not quoted: one may hold a URL with its password by mistake.
                let is = match &value.kind {
                    // A password without its quotes is still a password.
                    _ if path.last().is_some_and(|key| SECRETS.contains(key)) => "not text".to_owned(),
                    ValueKind::Array(_) => "a list".to_owned(),
                    ValueKind::Table(_) => "a section".to_owned(),
                    ValueKind::String(text) => format!("\"{text}\""),
                    _ => value.to_string(),
                };
                Err(Error(format!("`{}` in {origin} is {is}, but {}", path.join("."), kind.expected())))
            }
        }
    }

    /// Adds one value that is written as plain text, in the environment or as a flag.
    pub(super) fn add_text(&self, layer: &mut Layer, path: &[&str], text: &str, origin: &str) -> Result<(), Error> {
        let key = path.join(".");
        let kind = self.kind(path).ok_or_else(|| self.unknown_key(path, origin))?;
        let wrong = |what| Error(format!("`{key}` in {origin} is \"{text}\", but must be {what}"));
        let value = match kind {
            Kind::Text => text.into(),
            Kind::List => split(text),
            Kind::Number => text.trim().parse::<i64>().map_err(|_not_a_number| wrong("a whole number"))?.into(),
            Kind::Switch => text.trim().parse::<bool>().map_err(|_not_a_bool| wrong("true or false"))?.into(),
        };
        insert(&mut layer.values, path, value);
        layer.origins.push((key, origin.to_owned()));
        Ok(())
    }

    /// Whether the key exists.
    pub(super) fn knows(&self, path: &[&str]) -> bool {
        self.kind(path).is_some()
    }

    fn kind(&self, path: &[&str]) -> Option<Kind> {
        match path {
            [QUEUES, _, key] => QUEUE_KEYS.iter().find(|(name, _)| name == key).map(|(_, kind)| *kind),
            [section, key] => self.0.get(*section)?.get(*key).copied(),
            _ => None,
        }
    }

    /// The sentence for a key that does not exist.
    pub(super) fn unknown_key(&self, path: &[&str], origin: &str) -> Error {
        let key = path.join(".");
        let advice = match path {
            [QUEUES, name, sub] => {
                let known = QUEUE_KEYS.map(|(key, _)| key);
                nearest(sub, known.into_iter()).map(|k| format!("did you mean `{QUEUES}.{name}.{k}`?"))
            }
            [section, _] if !self.0.contains_key(*section) => return self.unknown_section(section, origin),
            [section, last, ..] => {
                let all = || self.0.iter().flat_map(|(s, keys)| keys.keys().map(move |k| format!("{s}.{k}")));
                let elsewhere = || all().find(|k| k.split_once('.').is_some_and(|(_, key)| key == *last));
                let near = self.0.get(*section).and_then(|keys| nearest(last, keys.keys().map(String::as_str)));
                near.map(|k| format!("{section}.{k}")).or_else(elsewhere).map(|k| format!("did you mean `{k}`?"))
            }
            _ => None,
        };
        let advice = advice.unwrap_or_else(|| match path {
            [QUEUES, ..] => format!("write `{QUEUES}.<name>.depth_limit`"),
            [section, ..] => {
                let known: Vec<_> = self.0.get(*section).into_iter().flat_map(BTreeMap::keys).cloned().collect();
                format!("keys of `{section}` are {}", known.join(", "))
            }
            [] => "see config/default.toml".to_owned(),
        });
        Error(format!("unknown key `{key}` in {origin}; {advice}"))
    }

    fn unknown_section(&self, section: &str, origin: &str) -> Error {
        let known = || self.0.keys().map(String::as_str);
        let advice = match nearest(section, known()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("sections are {}", known().collect::<Vec<_>>().join(", ")),
        };
        Error(format!("unknown section `{section}` in {origin}; {advice}"))
    }
}

fn parse(origin: &str, text: &str) -> Result<Map<String, Value>, Error> {
    config::File::from_str(text, FileFormat::Toml).collect().map_err(|e| {
        // The parser draws a picture of the place; its first line says where and its last one what.
        let picture = match e {
            config::ConfigError::FileParse { cause, .. } => cause.to_string(),
            other => other.to_string(),
        };
        let mut lines = picture.lines().map(str::trim).filter(|l| !l.is_empty());
        let (first, last) = (lines.next().unwrap_or("it cannot be read"), lines.next_back());
        Error(format!("{origin} is not TOML: {first}{}", last.map(|l| format!(", {l}")).unwrap_or_default()))
    })
}

fn entries<'a>(path: &str, value: &'a mut Value, origin: &str) -> Result<Vec<(&'a str, &'a mut Value)>, Error> {
    match &mut value.kind {
        ValueKind::Table(table) => {
            let mut entries: Vec<_> = table.iter_mut().map(|(k, v)| (k.as_str(), v)).collect();
            entries.sort_by_key(|(k, _)| *k);
            Ok(entries)
        }
        _ => Err(Error(format!("`{path}` in {origin} must be a section: write [{path}] and its keys below"))),
    }
}

fn split(text: &str) -> Value {
    let entries = text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Value::from);
    entries.collect::<Vec<_>>().into()
}

fn insert(map: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] => {
            map.insert((*key).to_owned(), value);
        }
        [section, rest @ ..] => {
            let inner = map.entry((*section).to_owned()).or_insert_with(|| Map::<String, Value>::new().into());
            if let ValueKind::Table(table) = &mut inner.kind {
                insert(table, rest, value);
            }
        }
    }
}

/// The known word that a typing mistake most likely meant.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    known.map(|k| (distance(word, k), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(b.chars()) {
            let changed = diagonal + usize::from(ca != cb);
            diagonal = *cell;
            left = changed.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, d) in [("", "", 0), ("bind", "bnd", 1), ("kitten", "sitting", 3), ("", "abc", 3), ("x", "x", 0)] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
        assert_eq!(nearest("concurency", ["queues", "concurrency"].into_iter()), Some("concurrency"));
        assert_eq!(nearest("zzz", ["queues", "bind"].into_iter()), None);
    }
}
