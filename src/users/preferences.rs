//! How a user wants to be told things: by which channels, of which categories, and not at night.
//!
//! Kept as one small document, so that a client can change any part of it by a merge patch and nothing else moves.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::quiet::{QuietHours, WallTime};
use crate::base::{clock::Timestamp, error::FieldError, id::CategoryName, merge::merge};

/// Most categories that a user may have rules for.
pub const CATEGORIES_MAX: usize = 50;

/// A way to reach a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Mail.
    Email,
    /// Messages to devices and browsers.
    Push,
    /// Calls to the user's own servers.
    Webhook,
    /// Lines in the log.
    Console,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 4] = [Self::Email, Self::Push, Self::Webhook, Self::Console];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Push => "push",
            Self::Webhook => "webhook",
            Self::Console => "console",
        }
    }
}

/// A user's rules. What is not said is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preferences {
    /// Whether mail is wanted.
    pub email: bool,
    /// Whether push messages are wanted.
    pub push: bool,
    /// Whether webhook calls are wanted.
    pub webhook: bool,
    /// Whether console lines are wanted.
    pub console: bool,
    /// What holds for single categories instead.
    pub categories: BTreeMap<CategoryName, BTreeMap<Channel, bool>>,
    /// When nothing is wanted but what is urgent.
    pub quiet_hours: Option<QuietHours>,
}

impl Default for Preferences {
    fn default() -> Self {
        let categories = BTreeMap::new();
        Self { email: true, push: true, webhook: true, console: true, categories, quiet_hours: None }
    }
}

/// Which of a user's rules decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The one for this channel and category.
    Category,
    /// The one for this channel.
    Channel,
}

impl Rule {
    /// A word for histories: `preferences.categories` or `preferences.channel`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Category => "preferences.categories",
            Self::Channel => "preferences.channel",
        }
    }
}

impl Preferences {
    /// Whether a message of `category` may go over `channel`, and which rule says so.
    #[must_use]
    pub fn allows(&self, channel: Channel, category: Option<&CategoryName>) -> (bool, Rule) {
        match category.and_then(|c| self.categories.get(c)?.get(&channel)) {
            Some(allowed) => (*allowed, Rule::Category),
            None => (self.channel(channel), Rule::Channel),
        }
    }

    /// The end of the quiet period that `now` lies in, for a user who lives by `zone`; none if it lies in none.
    #[must_use]
    pub fn quiet_until(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.quiet_hours.and_then(|hours| hours.until(now, zone))
    }

    /// These preferences under a merge patch (RFC 7396); null brings back what holds if nothing is said.
    ///
    /// # Errors
    /// The field that is wrong, as its path below the preferences.
    pub fn patched(&self, patch: &Map<String, Value>) -> Result<Self, FieldError> {
        let wrong = |path: String, e: &serde_json::Error| FieldError::new(path.trim_matches('.'), e.to_string());
        let mut document = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            Ok(_) => Map::new(),
            Err(e) => return Err(wrong(String::new(), &e)),
        };
        merge(&mut document, patch);
        let patched: Self = serde_path_to_error::deserialize(Value::Object(document))
            .map_err(|e| wrong(e.path().to_string(), e.inner()))?;
        patched.check()?;
        Ok(patched)
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// The field that is wrong, as its path below the preferences.
    pub fn check(&self) -> Result<(), FieldError> {
        let n = self.categories.len();
        if n > CATEGORIES_MAX {
            return Err(FieldError::new(
                "categories",
                format!("has {n} entries, at most {CATEGORIES_MAX} are allowed"),
            ));
        }
        Ok(())
    }

    const fn channel(&self, channel: Channel) -> bool {
        match channel {
            Channel::Email => self.email,
            Channel::Push => self.push,
            Channel::Webhook => self.webhook,
            Channel::Console => self.console,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hours(start: &str, end: &str) -> QuietHours {
        QuietHours { start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    #[test]
    fn a_rule_for_a_category_goes_before_that_for_the_channel() {
        let text = r#"{"push": false, "categories": {"billing": {"push": true, "email": false}}}"#;
        let p: Preferences = serde_json::from_str(text).unwrap();
        let (billing, news) = (CategoryName::new("billing").unwrap(), CategoryName::new("news").unwrap());
        assert_eq!(p.allows(Channel::Push, Some(&billing)), (true, Rule::Category));
        assert_eq!(p.allows(Channel::Email, Some(&billing)), (false, Rule::Category));
        assert_eq!(p.allows(Channel::Webhook, Some(&billing)), (true, Rule::Channel));
        assert_eq!(p.allows(Channel::Push, Some(&news)), (false, Rule::Channel));
        assert_eq!(p.allows(Channel::Push, None), (false, Rule::Channel));
        for channel in Channel::ALL {
            assert_eq!(Preferences::default().allows(channel, None), (true, Rule::Channel));
            assert_eq!(serde_json::to_value(channel).unwrap(), channel.as_str());
        }
    }

    #[test]
    fn patches_merge_and_name_the_field_at_fault() {
        let patch = |p: &Preferences, v: Value| p.patched(v.as_object().unwrap());
        let night = json!({"start": "22:00", "end": "07:00"});
        let first = json!({"email": false, "quiet_hours": night, "categories": {"a": {"push": false}}});
        let p = patch(&Preferences::default(), first).unwrap();
        assert!(!p.email && p.push && p.quiet_hours == Some(hours("22:00", "07:00")));
        let p = patch(&p, json!({"quiet_hours": {"end": "06:00"}, "categories": {"b": {"email": false}}})).unwrap();
        assert_eq!((p.quiet_hours, p.categories.len()), (Some(hours("22:00", "06:00")), 2));
        let p = patch(&p, json!({"email": null, "quiet_hours": null, "categories": null})).unwrap();
        assert_eq!(p, Preferences::default());
        for (bad, field) in [
            (json!({"email": "yes"}), "email"),
            (json!({"fax": true}), "fax"),
            (json!({"quiet_hours": {"start": "22:00"}}), "quiet_hours"),
            (json!({"quiet_hours": {"start": "24:00", "end": "07:00"}}), "quiet_hours.start"),
            (json!({"quiet_hours": {"start": "22:00", "end": "7:00"}}), "quiet_hours.end"),
            (json!({"categories": {"A B": {}}}), "categories"),
            (json!({"categories": {"a": {"fax": true}}}), "categories.a"),
        ] {
            let e = patch(&Preferences::default(), bad.clone()).unwrap_err();
            assert!(e.field.starts_with(field), "{bad}: {e:?}");
        }
        let many: Map<String, Value> = (0..51).map(|n| (format!("c{n}"), json!({}))).collect();
        assert_eq!(patch(&Preferences::default(), json!({"categories": many})).unwrap_err().field, "categories");
    }
}
