//! Prints the resolved configuration as TOML, with secrets masked: safe to paste into a bug report.

use serde_json::Value;

use super::{Config, DEFAULT_TOML, Error};

/// What stands in the place of a secret.
pub(super) const MASK: &str = "***";

/// The configuration in the order of `config/default.toml`; loading it gives the same configuration, but for the masks.
///
/// # Errors
/// If a value cannot be written, which is a defect.
pub fn toml(config: &Config) -> Result<String, Error> {
    let mut shown = config.clone();
    shown.store.url = mask_url(&config.store.url);
    shown.broker.url = mask_url(&config.broker.url);
    shown.cache.url = mask_url(&config.cache.url);
    let values = serde_json::to_value(&shown).map_err(|e| Error(format!("the configuration cannot be shown: {e}")))?;
    let mut out = String::new();
    let mut section = "";
    for line in DEFAULT_TOML.lines().filter(|l| !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
            if name == "queues" {
                queue_sections(&mut out, values.get(name));
            } else {
                out.push_str(&format!("{}[{name}]\n", if out.is_empty() { "" } else { "\n" }));
            }
        } else if let Some((key, _)) = line.split_once(" = ") {
            let value = values.get(section).and_then(|s| s.get(key)).unwrap_or(&Value::Null);
            out.push_str(&format!("{key} = {}\n", literal(value)));
        }
    }
    Ok(out)
}

fn queue_sections(out: &mut String, queues: Option<&Value>) {
    for (name, queue) in queues.and_then(Value::as_object).into_iter().flatten() {
        // Queue names may hold dots, which would nest the section.
        out.push_str(&format!("\n[queues.\"{name}\"]\n"));
        for (key, value) in queue.as_object().into_iter().flatten() {
            out.push_str(&format!("{key} = {}\n", literal(value)));
        }
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(literal).collect::<Vec<_>>().join(", ")),
        // JSON's escapes are TOML's, but for one character that TOML wants escaped.
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

/// A URL without its secrets: passwords before `@`, and parameters that sound like one.
#[must_use]
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // No URL at all, so there is no telling which part of it is secret.
        return MASK.to_owned();
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    // The last `@`: a password may hold one that was not escaped, and it must not show.
    let place = match place.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{MASK}@{host}"),
            None => place.to_owned(),
        },
        None => place.to_owned(),
    };
    let query = query.map(|q| q.split('&').map(mask_parameter).collect::<Vec<_>>().join("&"));
    format!("{scheme}://{place}{}", query.map(|q| format!("?{q}")).unwrap_or_default())
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((key, _))
            if ["pass", "secret", "token", "key", "credential"].iter().any(|s| key.to_lowercase().contains(s)) =>
        {
            format!("{key}={MASK}")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn passwords_are_masked() {
        for (url, shown) in [
            ("sqlite://data/app.db", "sqlite://data/app.db"),
            ("amqp://guest:guest@host:5672/%2f", "amqp://guest:***@host:5672/%2f"),
            ("redis://:pw@host", "redis://:***@host"),
            ("mongodb://u:p@ss/w@h1,h2/db?authSource=a", "mongodb://u:***@h1,h2/db?authSource=a"),
            ("redis://host?password=x&db=1", "redis://host?password=***&db=1"),
            ("secret", "***"),
        ] {
            assert_eq!(mask_url(url), shown);
        }
    }

    #[test]
    fn what_is_shown_loads_to_the_same() {
        let flags = [
            ("worker.queues", "a:2,b"),
            ("jobs.lease", "90s"),
            ("queues.heavy.depth_limit", "5"),
            ("log.level", "info,app=\"x\"\u{7f}"),
        ];
        let flags = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let first = toml(&load(&Sources { flags, ..Sources::default() }).unwrap()).unwrap();
        assert!(first.starts_with("[store]\nurl = \"sqlite://data/app.db\"\nsync = \"full\"\n\n[broker]\n"), "{first}");
        assert!(first.contains("queues = [\"a:2\", \"b\"]") && !first.contains("null"), "{first}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &first).unwrap();
        let again = load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() }).unwrap();
        assert_eq!(toml(&again).unwrap(), first);
    }
}
