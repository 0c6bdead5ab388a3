//! Validated newtypes for everything that is named: ids, queue and kind names, priorities.
//!
//! A value of one of these types is already checked, so no room checks it again.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                // Only the canonical form: one thing has one name.
                match Uuid::try_parse(s) {
                    Ok(u) if s.len() == 36 => Ok(Self(u)),
                    _ => Err("is not an id: ids are UUIDs such as 0192f0c1-2345-7abc-8def-0123456789ab".to_owned()),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id! {
    /// Names one job.
    JobId
}
uuid_id! {
    /// Names one item.
    ItemId
}
uuid_id! {
    /// Names one record: a rule, a suppression, a message in the sink.
    RecordId
}
uuid_id! {
    /// Names one worker process: new at each start, so that a restarted worker is never mistaken for the one that died.
    WorkerId
}

uuid_id! {
    /// Names one user.
    UserId
}
uuid_id! {
    /// Names one device, browser or server of a user's.
    ContactId
}
uuid_id! {
    /// Names one key of a program that calls the API.
    KeyId
}

const NAME_MAX: usize = 64;

fn check_name(s: &str) -> Result<(), String> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
    if s.is_empty() || s.len() > NAME_MAX || !s.bytes().all(ok) || s.starts_with(['.', '-']) {
        return Err(format!(
            "must be 1 to {NAME_MAX} characters from a-z, 0-9, `_`, `-` and `.`, not starting with `-` or `.`"
        ));
    }
    Ok(())
}

/// What RabbitMQ keeps for itself, whichever broker is in use: a name must not depend on that.
const RESERVED: &str = "amq.";

fn check_queue(s: &str) -> Result<(), String> {
    check_name(s)?;
    if s.starts_with(RESERVED) {
        return Err(format!("must not start with `{RESERVED}`, which RabbitMQ keeps for itself"));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        name! { $(#[$doc])* $name, check_name }
    };
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// A sentence that says which characters and lengths are right.
            pub fn new(s: &str) -> Result<Self, String> {
                $check(s)?;
                Ok(Self(Arc::from(s)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                Self::new(s)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(&std::borrow::Cow::<'de, str>::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// Names a queue.
    QueueName, check_queue
}

impl QueueName {
    /// A name that was checked when it was stored, perhaps by rules that were laxer than today's.
    ///
    /// # Errors
    /// As [`QueueName::new`], but what is reserved is let through.
    pub fn stored(s: &str) -> Result<Self, String> {
        check_name(s)?;
        Ok(Self(Arc::from(s)))
    }

    /// Reads a name as [`QueueName::stored`] does.
    ///
    /// # Errors
    /// If it is none.
    pub fn deserialize_stored<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Stored::deserialize(d)?.0)
    }

    /// Reads names with something to each as [`QueueName::stored`] does.
    ///
    /// # Errors
    /// If one is none.
    pub fn deserialize_stored_pairs<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        d: D,
    ) -> Result<Vec<(Self, T)>, D::Error> {
        Ok(Vec::<(Stored, T)>::deserialize(d)?.into_iter().map(|(name, of)| (name.0, of)).collect())
    }
}

struct Stored(QueueName);

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(d)?;
        QueueName::stored(&name).map(Self).map_err(serde::de::Error::custom)
    }
}
name! {
    /// Names a job kind: what code runs for a job.
    KindName
}

name! {
    /// Names a category of notifications, which people may switch off apart from others.
    CategoryName
}

/// How urgent a job is among the jobs of its queue: 1 (last) to 10 (first). `high` is 9, `medium` 5, `low` 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The highest.
    pub const MAX: Self = Self(10);
    /// What a job has that names none.
    pub const MEDIUM: Self = Self(5);
    /// The lowest.
    pub const MIN: Self = Self(1);

    /// Checks a number.
    ///
    /// # Errors
    /// A sentence, if `n` is not 1 to 10.
    pub fn new(n: i64) -> Result<Self, String> {
        match u8::try_from(n) {
            Ok(p @ 1..=10) => Ok(Self(p)),
            _ => Err(format!("is {n}, but a priority is 1 (last) to 10 (first), or `high`, `medium` or `low`")),
        }
    }

    /// As a number, 1 to 10.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl FromStr for Priority {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "high" => Ok(Self(9)),
            "medium" => Ok(Self::MEDIUM),
            "low" => Ok(Self::MIN),
            _ => match s.parse() {
                Ok(n) => Self::new(n),
                Err(_) => {
                    Err(format!("is `{s}`, but a priority is a number from 1 to 10, or `high`, `medium` or `low`"))
                }
            },
        }
    }
}

impl Serialize for Priority {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl serde::de::Visitor<'_> for V {
            type Value = Priority;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a priority: a number from 1 to 10, or `high`, `medium` or `low`")
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Priority, E> {
                Priority::new(n).map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Priority, E> {
                Priority::new(i64::try_from(n).unwrap_or(i64::MAX)).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<Priority, E> {
                match s {
                    "high" | "medium" | "low" => s.parse().map_err(E::custom),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(s), &self)),
                }
            }
        }
        d.deserialize_any(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["default", "a", "notification.email", "x_1-2"] {
            assert!(QueueName::new(good).is_ok(), "{good}");
        }
        for bad in ["amq.jobs", "amq."] {
            assert!(QueueName::new(bad).unwrap_err().contains("RabbitMQ"), "{bad}");
            assert!(serde_json::from_value::<QueueName>(bad.into()).is_err() && KindName::new(bad).is_ok(), "{bad}");
            assert_eq!(QueueName::stored(bad).unwrap().as_str(), bad);
        }
        assert!(QueueName::new("amqp").is_ok() && QueueName::stored("a b").is_err());
        for bad in ["", "Default", "a b", "a\0b", "-x", ".x", "ü", &"x".repeat(65)] {
            assert!(QueueName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn priorities_have_numbers_and_words() {
        for (text, n) in [("1", 1), ("10", 10), ("\"high\"", 9), ("\"medium\"", 5), ("\"low\"", 1)] {
            assert_eq!(serde_json::from_str::<Priority>(text).unwrap().get(), n);
        }
        for bad in ["0", "11", "-1", "5.5", "\"urgent\"", "\"5\"", "null"] {
            assert!(serde_json::from_str::<Priority>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let id = "0192f0c1-2345-7abc-8def-0123456789ab";
        assert_eq!(id.parse::<JobId>().unwrap().to_string(), id);
        assert!("0192f0c123457abc8def0123456789ab".parse::<JobId>().is_err());
        assert!("nonsense".parse::<JobId>().is_err());
    }
}
