//! Keeping templates: every change is a new version, and the latest of each language is found fast.
//!
//! Two sorts of record stand on the shelf: a *head* for each code and language, which is the latest version, and every
//! version itself, which never changes. Saving writes both in one step.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    channels::Content,
    error::NotificationError,
    model::{Channel, Frozen},
    template::{
        engine::Engine,
        model::{DEFAULT_LOCALE, Parts, Ready, Template, Variable, locale_chain},
    },
};
use crate::{
    base::{
        backoff::Backoff,
        clock::{Clock, Timestamp},
        page::{Page, PageRequest},
        store::StoreError,
        zone::Zones,
    },
    cache::Through,
    records::{Committed, Record, RecordStore, Shelf, Write},
};

/// The version of [`Template`]'s shape in the cache, to be raised when its fields change.
pub const CACHED_SHAPE: u8 = 1;
/// How often a save is tried against other writers, and how they get out of each other's way.
const TRIES: u32 = 64;
const AGAIN: Backoff = Backoff { base_ms: 2, cap_ms: 50 };
/// Versions that are kept compiled. They never change.
const READY: u64 = 1000;
/// Labels every head.
const HEAD: &str = "head";

/// What a caller says of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTemplate {
    /// Names it in all languages.
    pub code: String,
    /// Its language.
    pub locale: String,
    /// What it says.
    pub parts: Parts,
    /// What it needs to be told.
    pub variables: Vec<Variable>,
    /// Why this version was made.
    pub note: Option<String>,
}

/// A template with its times.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Saved {
    /// What it is.
    pub template: Template,
    /// When this version was made.
    pub created_at: Timestamp,
}

/// The templates service.
#[derive(Clone)]
pub struct Templates {
    store: Arc<dyn RecordStore>,
    cache: Option<Through>,
    ready: moka::sync::Cache<String, Arc<Ready>>,
    engine: Engine,
    clock: Clock,
}

/// What is stored is not what it should be.
pub(super) fn corrupt(what: &str, e: &serde_json::Error) -> NotificationError {
    NotificationError::Store(StoreError::Corrupt(format!("{what}: {e}")))
}

/// A type that cannot be written as JSON.
pub(super) fn defect(e: serde_json::Error) -> NotificationError {
    NotificationError::Store(StoreError::Internal(e.to_string()))
}

fn head_name(code: &str, locale: &str) -> String {
    format!("head:{code}/{locale}")
}

fn version_name(code: &str, locale: &str, version: u64) -> String {
    format!("version:{code}/{locale}/{version}")
}

fn saved(record: Record) -> Result<Saved, NotificationError> {
    let template = serde_json::from_value(record.body).map_err(|e| corrupt("template", &e))?;
    Ok(Saved { template, created_at: record.updated_at })
}

/// Templates that come with the program; one that is saved under the same code is used instead.
fn built_in(code: &str) -> Option<Template> {
    (code == "event").then(|| Template {
        code: code.to_owned(),
        locale: DEFAULT_LOCALE.to_owned(),
        version: 0,
        parts: Parts {
            console: Some("{{ event.name }} {{ event.subject }} {{ event.data|tojson }}".to_owned()),
            webhook: Some(r#"{"type": {{ event.name }}, "timestamp": {{ event.at }}, "data": {{ event.data }}}"#.to_owned()),
            ..Parts::default()
        },
        variables: vec![Variable {
            name: "event".to_owned(),
            required: true,
            example: Some(serde_json::json!({
                "name": "item.created", "subject": "0192f0c1-2345-7abc-8def-0123456789ab", "at": "2026-11-21T08:00:00.000Z",
                "data": { "name": "Desk lamp" },
            })),
        }],
        note: None,
    })
}

impl Templates {
    /// The templates in `store`, which show times by the clocks of `zones`.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, clock: Clock, zones: Zones) -> Self {
        Self { store, cache: None, ready: moka::sync::Cache::new(READY), engine: Engine::new(zones), clock }
    }

    /// The same, reading heads through `cache`. Then every process that saves templates must use it.
    #[must_use]
    pub fn cached(self, cache: Through) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// Saves a template; if there is one of this code and language, as its next version.
    ///
    /// # Errors
    /// If it is wrong, others keep saving it, or the store fails.
    pub async fn save(&self, new: NewTemplate) -> Result<Saved, NotificationError> {
        let mut template = Template {
            code: new.code,
            locale: new.locale,
            version: 1,
            parts: new.parts,
            variables: new.variables,
            note: new.note,
        };
        template.check(&self.engine).map_err(NotificationError::Invalid)?;
        let (code, locale) = (template.code.clone(), template.locale.clone());
        let mark = match &self.cache {
            Some(cache) => Some(cache.begin(&format!("{code}/{locale}")).await),
            None => None,
        };
        for attempt in 0..TRIES {
            let head = self.store.find(Shelf::Templates, &head_name(&code, &locale)).await?;
            template.version = match &head {
                Some(head) => saved(head.clone())?.template.version.saturating_add(1),
                None => 1,
            };
            let now = self.clock.now();
            let body = serde_json::to_value(&template).map_err(defect)?;
            let version = Record {
                shelf: Shelf::Templates,
                id: self.clock.new_uuid(),
                version: 1,
                names: vec![version_name(&code, &locale, template.version)],
                labels: vec![format!("version:{code}/{locale}")],
                created_at: now,
                updated_at: now,
                expires_at: None,
                body: body.clone(),
            };
            let head = match head {
                Some(old) => {
                    let expected = old.version;
                    let record = Record { version: expected.saturating_add(1), updated_at: now, body, ..old };
                    Write::Replace { record, expected }
                }
                None => Write::Insert(Record {
                    id: self.clock.new_uuid(),
                    names: vec![head_name(&code, &locale)],
                    labels: vec![HEAD.to_owned(), format!("head:{code}")],
                    ..version.clone()
                }),
            };
            if self.store.commit(vec![Write::Insert(version), head], &[]).await? == Committed::Done {
                let saved = Saved { template, created_at: now };
                if let Some(mark) = mark {
                    mark.end(Some(&saved)).await;
                }
                return Ok(saved);
            }
            tokio::time::sleep(AGAIN.delay(attempt)).await;
        }
        Err(NotificationError::Conflict(format!("others keep saving the template `{code}` in `{locale}`: try again")))
    }

    /// The latest version in exactly this language.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn head(&self, code: &str, locale: &str) -> Result<Option<Saved>, NotificationError> {
        let load = async || match self.store.find(Shelf::Templates, &head_name(code, locale)).await? {
            Some(record) => saved(record).map(Some),
            None => Ok(None),
        };
        let found = match &self.cache {
            Some(cache) => cache.read(&format!("{code}/{locale}"), load).await?,
            None => load().await?,
        };
        let own = || built_in(code).filter(|t| t.locale == locale);
        Ok(found.or_else(|| own().map(|template| Saved { template, created_at: Timestamp::default() })))
    }

    /// The latest version in the first language that there is of `pt-BR`, `pt`, `default`.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn resolve(&self, code: &str, locale: &str) -> Result<(Saved, Vec<String>), NotificationError> {
        let chain = locale_chain(locale);
        for (i, tried) in chain.iter().enumerate() {
            if let Some(found) = self.head(code, tried).await? {
                return Ok((found, chain.into_iter().take(i + 1).collect()));
            }
        }
        let message = format!("there is no template `{code}` in any of these languages: {}", chain.join(", "));
        Err(NotificationError::NotFound(message))
    }

    /// One version, as a message that was accepted with it says it.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn version(&self, frozen: &Frozen) -> Result<Arc<Ready>, NotificationError> {
        let Frozen { code, locale, version } = frozen;
        let name = version_name(code, locale, *version);
        if let Some(ready) = self.ready.get(&name) {
            return Ok(ready);
        }
        let template = match built_in(code).filter(|t| t.version == *version && t.locale == *locale) {
            Some(own) => own,
            None => match self.store.find(Shelf::Templates, &name).await? {
                Some(record) => saved(record)?.template,
                None => {
                    let message = format!("there is no version {version} of the template `{code}` in `{locale}`");
                    return Err(NotificationError::NotFound(message));
                }
            },
        };
        Ok(self.compiled(name, template))
    }

    /// The compiled form of a version that was just read.
    #[must_use]
    pub fn ready(&self, template: Template) -> Arc<Ready> {
        let name = version_name(&template.code, &template.locale, template.version);
        match self.ready.get(&name) {
            Some(ready) => ready,
            None => self.compiled(name, template),
        }
    }

    fn compiled(&self, name: String, template: Template) -> Arc<Ready> {
        let ready = Arc::new(Ready::new(template, &self.engine));
        self.ready.insert(name, Arc::clone(&ready));
        ready
    }

    /// One version, with its time.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn saved_version(&self, frozen: &Frozen) -> Result<Saved, NotificationError> {
        let name = version_name(&frozen.code, &frozen.locale, frozen.version);
        match self.store.find(Shelf::Templates, &name).await? {
            Some(record) => saved(record),
            None => {
                let template = self.version(frozen).await?.template.clone();
                Ok(Saved { template, created_at: Timestamp::default() })
            }
        }
    }

    /// One page of the latest versions, the newest template first; those of one code only, if it is named.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self, code: Option<&str>, page: PageRequest) -> Result<Page<(Uuid, Saved)>, NotificationError> {
        self.page(code.map_or_else(|| HEAD.to_owned(), |code| format!("head:{code}")), page).await
    }

    /// One page of the versions in one language, newest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn versions(
        &self,
        code: &str,
        locale: &str,
        page: PageRequest,
    ) -> Result<Page<(Uuid, Saved)>, NotificationError> {
        self.page(format!("version:{code}/{locale}"), page).await
    }

    async fn page(&self, label: String, page: PageRequest) -> Result<Page<(Uuid, Saved)>, NotificationError> {
        let found = self.store.list(Shelf::Templates, &[label], page).await?;
        let data = found.data.into_iter().map(|r| Ok((r.id, saved(r)?))).collect::<Result<_, NotificationError>>()?;
        Ok(Page { data, next: found.next })
    }

    /// Saves an older version again, as the newest.
    ///
    /// # Errors
    /// If there is none, or as [`Templates::save`].
    pub async fn roll_back(&self, code: &str, locale: &str, version: u64) -> Result<Saved, NotificationError> {
        let frozen = Frozen { code: code.to_owned(), locale: locale.to_owned(), version };
        let old = self.version(&frozen).await?;
        self.save(NewTemplate {
            code: code.to_owned(),
            locale: locale.to_owned(),
            parts: old.template.parts.clone(),
            variables: old.template.variables.clone(),
            note: Some(format!("rolled back to version {version}")),
        })
        .await
    }

    /// What a template says with these variables, or with its examples.
    ///
    /// # Errors
    /// What is wrong with it or them.
    pub fn preview(
        &self,
        template: &Template,
        channel: Channel,
        variables: Option<&Map<String, Value>>,
    ) -> Result<Content, NotificationError> {
        let examples = template.examples();
        let ready = Ready::new(template.clone(), &self.engine);
        ready.render(channel, variables.unwrap_or(&examples)).map_err(|e| NotificationError::Invalid(vec![e]))
    }
}

/// What two versions say differently, line by line: `-` was, `+` is, a blank is the same.
#[must_use]
pub fn diff(old: &Template, new: &Template) -> Vec<String> {
    let lines = |t: &Template| -> Vec<String> {
        let shown = serde_json::json!({ "parts": t.parts, "variables": t.variables });
        let Value::Object(sections) = &shown else { return Vec::new() };
        let mut lines = Vec::new();
        for (name, section) in sections {
            flatten(name, section, &mut lines);
        }
        lines
    };
    let (old, new) = (lines(old), lines(new));
    similar::TextDiff::from_slices(
        &old.iter().map(String::as_str).collect::<Vec<_>>(),
        &new.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .iter_all_changes()
    .map(|change| format!("{}{}", change.tag(), change.value()))
    .collect()
}

/// Every text of a document as `path: line`.
fn flatten(path: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| flatten(&format!("{path}.{k}"), v, out)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| flatten(&format!("{path}[{i}]"), v, out)),
        Value::String(text) => out.extend(text.lines().map(|line| format!("{path}: {line}"))),
        Value::Null => {}
        other => out.push(format!("{path}: {other}")),
    }
}
