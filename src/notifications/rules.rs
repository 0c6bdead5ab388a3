//! Rules: what is sent to whom when something happens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    error::NotificationError,
    model::{Channel, To, check_name},
    templates::{corrupt, defect},
};
use crate::{
    base::{
        clock::{Clock, Timestamp},
        error::FieldError,
        id::{Priority, UserId},
        page::{Page, PageRequest},
    },
    events::{self, Event},
    records::{Committed, Record, RecordStore, Shelf, Write},
};

/// Most recipients of a rule.
pub const RECIPIENTS_MAX: usize = 100;
/// Most rules that one event can have; more are an error when they are made.
const RULES_MAX: usize = 200;

/// Who gets what a rule sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Recipient {
    /// A user.
    #[serde(rename = "user_id")]
    User(UserId),
    /// A mailbox.
    #[serde(rename = "email")]
    Email(String),
    /// The log.
    #[serde(rename = "console")]
    Console(bool),
    /// The user that the event is about (`user.registered`).
    #[serde(rename = "subject")]
    Subject(bool),
}

impl Recipient {
    /// Who that is for this event; none if nobody.
    #[must_use]
    pub fn of(&self, event: &Event) -> Option<To> {
        match self {
            Self::User(id) => Some(To::User(*id)),
            Self::Email(mailbox) => Some(To::Email(mailbox.clone())),
            Self::Console(_) => Some(To::Console(true)),
            Self::Subject(_) => event.subject.parse().ok().map(To::User),
        }
    }
}

/// What is sent to whom when something happens. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Names it.
    pub name: String,
    /// The event, such as `item.created`.
    pub on: String,
    /// How it is sent.
    pub channel: Channel,
    /// What is sent: a template, which is told `event`.
    pub template_code: String,
    /// Who gets it.
    pub recipients: Vec<Recipient>,
    /// What sort of message it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Whether it is in force.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

impl Rule {
    /// Reads a rule as the configuration has it: `EVENT CHANNEL TEMPLATE RECIPIENT`.
    ///
    /// # Errors
    /// The rest of a sentence: what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [on, channel, template_code, to] = words.as_slice() else {
            return Err("but an entry is four words: EVENT CHANNEL TEMPLATE RECIPIENT".to_owned());
        };
        let known = || Channel::ALL.map(Channel::as_str).join(", ");
        let channel = Channel::ALL.into_iter().find(|c| c.as_str() == *channel);
        let recipient = match (*to, to.parse()) {
            ("log", _) => Recipient::Console(true),
            ("subject", _) => Recipient::Subject(true),
            (_, Ok(user)) => Recipient::User(user),
            (mailbox, Err(_)) => Recipient::Email(mailbox.to_owned()),
        };
        // Of the words, so that a rule keeps its name wherever it stands.
        let hash = Sha256::digest(words.join(" "));
        let rule = Self {
            name: format!("config-{}", hash.iter().take(4).map(|b| format!("{b:02x}")).collect::<String>()),
            on: (*on).to_owned(),
            channel: channel.ok_or_else(|| format!("whose second word is no channel: {}", known()))?,
            template_code: (*template_code).to_owned(),
            recipients: vec![recipient],
            category: None,
            priority: None,
            enabled: true,
        };
        match rule.check() {
            Ok(()) => Ok(rule),
            Err(faults) => {
                let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
                Err(format!("which is wrong: {}", said.join("; ")))
            }
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Every fault found, each with its field.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut faults = Vec::new();
        let mut note = |field: &str, checked: Result<(), String>| {
            faults.extend(checked.err().map(|message| FieldError::new(field, message)));
        };
        note("name", check_name(&self.name));
        if !events::NAMES.contains(&self.on.as_str()) {
            note("on", Err(format!("is `{}`, but events are {}", self.on, events::NAMES.join(", "))));
        }
        note("template_code", check_name(&self.template_code));
        note("category", self.category.as_deref().map_or(Ok(()), check_name));
        if !(1..=RECIPIENTS_MAX).contains(&self.recipients.len()) {
            let message = format!("holds {}, but must hold 1 to {RECIPIENTS_MAX}", self.recipients.len());
            note("recipients", Err(message));
        }
        for (i, to) in self.recipients.iter().enumerate() {
            let fits = match (to, self.channel) {
                (Recipient::Console(_), Channel::Console) | (Recipient::User(_) | Recipient::Subject(_), _) => Ok(()),
                (Recipient::Email(mailbox), Channel::Email) => crate::users::check::email(mailbox).map(drop),
                _ => Err(format!("cannot be reached by the channel `{}`", self.channel.as_str())),
            };
            note(&format!("recipients[{i}]"), fits);
            if matches!(to, Recipient::Subject(_)) && self.on != "user.registered" {
                note(
                    &format!("recipients[{i}]"),
                    Err("`subject` is a user only in the event user.registered".to_owned()),
                );
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// A rule with its id and times.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Names it; nil for one that comes with the program.
    pub id: Uuid,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// What it says.
    pub rule: Rule,
}

/// The rules service.
#[derive(Clone)]
pub struct Rules {
    store: Arc<dyn RecordStore>,
    clock: Clock,
    /// Those of the configuration.
    fixed: Vec<Rule>,
}

fn kept(record: Record) -> Result<Kept, NotificationError> {
    let rule = serde_json::from_value(record.body).map_err(|e| corrupt("rule", &e))?;
    Ok(Kept { id: record.id, created_at: record.created_at, updated_at: record.updated_at, rule })
}

impl Rules {
    /// The rules in `store`, and `fixed` ones.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, fixed: Vec<Rule>, clock: Clock) -> Self {
        Self { store, clock, fixed }
    }

    /// The rules of the configuration.
    #[must_use]
    pub fn fixed(&self) -> &[Rule] {
        &self.fixed
    }

    /// Every rule in force for events of this name.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn on(&self, event: &str) -> Result<Vec<Kept>, NotificationError> {
        let never = Timestamp::default();
        let own = self.fixed.iter().filter(|r| r.on == event && r.enabled);
        let mut all: Vec<Kept> = own
            .map(|rule| Kept { id: Uuid::nil(), created_at: never, updated_at: never, rule: rule.clone() })
            .collect();
        let page = PageRequest { limit: RULES_MAX, after: None };
        let found = self.store.list(Shelf::Rules, &[format!("on:{event}"), "enabled".to_owned()], page).await?;
        for record in found.data {
            all.push(kept(record)?);
        }
        Ok(all)
    }

    /// Makes a rule.
    ///
    /// # Errors
    /// If it is wrong, its name is taken, or the store fails.
    pub async fn create(&self, rule: Rule) -> Result<Kept, NotificationError> {
        let record = self.record(&rule, self.clock.new_uuid(), 1, self.clock.now())?;
        self.write(vec![Write::Insert(record.clone())], &rule.name).await?;
        kept(record)
    }

    /// Replaces a rule.
    ///
    /// # Errors
    /// If there is none, it is wrong, its name is taken, or the store fails.
    pub async fn replace(&self, id: Uuid, rule: Rule) -> Result<Kept, NotificationError> {
        let there = self.store.get(Shelf::Rules, id).await?.ok_or_else(|| missing(id))?;
        let record = self.record(&rule, id, there.version.saturating_add(1), there.created_at)?;
        self.write(vec![Write::Replace { record: record.clone(), expected: there.version }], &rule.name).await?;
        kept(record)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn remove(&self, id: Uuid) -> Result<(), NotificationError> {
        match self.store.commit(vec![Write::Remove { shelf: Shelf::Rules, id, expected: None }], &[]).await? {
            Committed::Done => Ok(()),
            _ => Err(missing(id)),
        }
    }

    /// One rule.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn get(&self, id: Uuid) -> Result<Kept, NotificationError> {
        self.store.get(Shelf::Rules, id).await?.ok_or_else(|| missing(id)).and_then(kept)
    }

    /// One page of the rules in the store, newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self, page: PageRequest) -> Result<Page<Kept>, NotificationError> {
        let found = self.store.list(Shelf::Rules, &[], page).await?;
        Ok(Page { data: found.data.into_iter().map(kept).collect::<Result<_, _>>()?, next: found.next })
    }

    fn record(&self, rule: &Rule, id: Uuid, version: u64, made: Timestamp) -> Result<Record, NotificationError> {
        rule.check().map_err(NotificationError::Invalid)?;
        let mut labels = vec![format!("on:{}", rule.on)];
        labels.extend(rule.enabled.then(|| "enabled".to_owned()));
        Ok(Record {
            shelf: Shelf::Rules,
            id,
            version,
            names: vec![format!("name:{}", rule.name)],
            labels,
            created_at: made,
            updated_at: self.clock.now(),
            expires_at: None,
            body: serde_json::to_value(rule).map_err(defect)?,
        })
    }

    async fn write(&self, writes: Vec<Write>, name: &str) -> Result<(), NotificationError> {
        match self.store.commit(writes, &[]).await? {
            Committed::Done => Ok(()),
            Committed::Taken(_) => Err(NotificationError::Conflict(format!("there is a rule `{name}` already"))),
            Committed::Stale(_) => {
                Err(NotificationError::Conflict("someone else changed the rule: read it again".into()))
            }
        }
    }
}

fn missing(id: Uuid) -> NotificationError {
    NotificationError::NotFound(format!("there is no rule {id}"))
}

/// What a rule's template is told of an event.
#[must_use]
pub fn variables(event: &Event) -> serde_json::Map<String, serde_json::Value> {
    let event = json!({
        "id": event.id, "name": event.name, "at": event.at, "subject": event.subject, "data": event.data,
        "request_id": event.correlation_id,
    });
    [("event".to_owned(), event)].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_configuration_are_four_words() {
        let log = Rule::parse("item.created console event log").unwrap();
        assert_eq!(
            (log.on.as_str(), log.channel, &log.recipients),
            ("item.created", Channel::Console, &vec![Recipient::Console(true)])
        );
        let mail = Rule::parse(" job.failed  email job-failed ops@example.com").unwrap();
        assert_eq!(mail.recipients, [Recipient::Email("ops@example.com".to_owned())]);
        assert!(
            mail.name != log.name
                && mail.name == Rule::parse("job.failed email job-failed ops@example.com").unwrap().name
        );
        assert_eq!(
            Rule::parse("user.registered email welcome subject").unwrap().recipients,
            [Recipient::Subject(true)]
        );
        let user = Rule::parse("item.deleted push note 0192f0c1-2345-7abc-8def-0123456789ab").unwrap();
        assert!(matches!(user.recipients.as_slice(), [Recipient::User(_)]));
        for (text, says) in [
            ("item.created console event", "four words"),
            ("item.created pigeon event log", "email, push, webhook, console"),
            ("item.eaten console event log", "events are item.created"),
            ("item.created email event log", "cannot be reached"),
            ("item.created email event nobody", "recipients[0]"),
            ("item.created email welcome subject", "user.registered"),
        ] {
            let said = Rule::parse(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
