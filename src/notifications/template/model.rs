//! What a template is: parts for each channel, in one language, with declared variables.

use std::collections::BTreeMap;

use minijinja::value::Serde;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::engine::{Engine, Escape, Fault};
use crate::{
    base::error::FieldError,
    notifications::{
        channels::Content,
        model::{Channel, check_name},
    },
};

/// Largest source of one part, in bytes.
pub const SOURCE_MAX: usize = 64 * 1024;
/// Most variables that a template declares.
pub const VARIABLES_MAX: usize = 100;
/// Longest rendered subject or title, in characters: RFC 5322's line.
pub const LINE_MAX: usize = 900;
/// The language that is found when no other is.
pub const DEFAULT_LOCALE: &str = "default";

/// A template in one language. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// Names it in all languages.
    pub code: String,
    /// `default`, or a language such as `pt` or `pt-BR`.
    pub locale: String,
    /// 1 at first, one more with each change.
    pub version: u64,
    /// What it says, by channel.
    pub parts: Parts,
    /// What it needs to be told.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// Why this version was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a template says, by channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// A mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailParts>,
    /// A push message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushParts>,
    /// The JSON document of a webhook; values are written as JSON, quotes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// A line for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
}

/// Parts of a mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailParts {
    /// One line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The HTML; values are escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
}

/// Parts of a push message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushParts {
    /// One line.
    pub title: String,
    /// A few lines.
    pub body: String,
    /// For the application.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
}

/// What a template needs to be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Whether a notification must give it; else it is none.
    #[serde(default = "yes")]
    pub required: bool,
    /// A value that works, for previews and for the check at save; a text if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Value>,
}

fn yes() -> bool {
    true
}

impl Template {
    /// Checks every field, and renders each part with the examples: what would fail at the first message is refused here.
    ///
    /// # Errors
    /// Every fault found, each with its field.
    pub fn check(&self, engine: &Engine) -> Result<(), Vec<FieldError>> {
        let mut faults = Vec::new();
        let mut note = |field: &str, checked: Result<(), String>| {
            faults.extend(checked.err().map(|message| FieldError::new(field, message)));
        };
        note("code", check_name(&self.code));
        note("locale", check_locale(&self.locale));
        if self.parts == Parts::default() {
            note("parts", Err("is empty, but a template needs a part for one channel at least".to_owned()));
        }
        if self.variables.len() > VARIABLES_MAX {
            note("variables", Err(format!("holds {}, at most {VARIABLES_MAX} are allowed", self.variables.len())));
        }
        for (i, variable) in self.variables.iter().enumerate() {
            let twice = self.variables.iter().take(i).any(|v| v.name == variable.name);
            let checked = if twice { Err("is declared twice".to_owned()) } else { check_variable(&variable.name) };
            note(&format!("variables[{i}].name"), checked);
        }
        for (part, source, _) in self.sources() {
            note(&field_of(&part), self.check_part(engine, source));
        }
        if faults.is_empty() {
            let ready = Ready::new(self.clone(), engine);
            for channel in self.channels() {
                faults.extend(ready.render(channel, &self.examples()).err());
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn check_part(&self, engine: &Engine, source: &str) -> Result<(), String> {
        if source.len() > SOURCE_MAX {
            return Err(format!("is {} bytes, at most {SOURCE_MAX} are allowed", source.len()));
        }
        let used = engine.check(source).map_err(|e| e.message)?;
        match used.iter().find(|name| !self.variables.iter().any(|v| v.name == **name)) {
            Some(name) => Err(format!("uses `{name}`, which `variables` does not declare")),
            None => Ok(()),
        }
    }

    /// Every part with its source and how values are written into it.
    fn sources(&self) -> Vec<(String, &str, Escape)> {
        let mut all = Vec::new();
        if let Some(e) = &self.parts.email {
            all.push(("email.subject".to_owned(), e.subject.as_str(), Escape::None));
            all.push(("email.text".to_owned(), e.text.as_str(), Escape::None));
            all.extend(e.html.as_deref().map(|html| ("email.html".to_owned(), html, Escape::Html)));
        }
        if let Some(p) = &self.parts.push {
            all.push(("push.title".to_owned(), p.title.as_str(), Escape::None));
            all.push(("push.body".to_owned(), p.body.as_str(), Escape::None));
            all.extend(p.data.iter().map(|(k, v)| (format!("push.data.{k}"), v.as_str(), Escape::None)));
        }
        all.extend(self.parts.webhook.as_deref().map(|w| ("webhook".to_owned(), w, Escape::Json)));
        all.extend(self.parts.console.as_deref().map(|c| ("console".to_owned(), c, Escape::None)));
        all
    }

    /// The channels it has parts for.
    #[must_use]
    pub fn channels(&self) -> Vec<Channel> {
        let p = &self.parts;
        let has = [p.email.is_some(), p.push.is_some(), p.webhook.is_some(), p.console.is_some()];
        let all = [Channel::Email, Channel::Push, Channel::Webhook, Channel::Console];
        all.into_iter().zip(has).filter(|(_, has)| *has).map(|(c, _)| c).collect()
    }

    /// The variables of a preview: the examples, and a text where there is none.
    #[must_use]
    pub fn examples(&self) -> Map<String, Value> {
        let example = |v: &Variable| v.example.clone().unwrap_or_else(|| json!(format!("<{}>", v.name)));
        self.variables.iter().map(|v| (v.name.clone(), example(v))).collect()
    }

    /// The variables that must be given and are not.
    pub fn missing<'a>(&'a self, given: &'a Map<String, Value>) -> impl Iterator<Item = &'a str> {
        let required = self.variables.iter().filter(|v| v.required).map(|v| v.name.as_str());
        required.filter(|name| given.get(*name).is_none_or(Value::is_null))
    }
}

/// The path of a part in a template.
fn field_of(part: &str) -> String {
    format!("parts.{part}")
}

/// A template whose parts are compiled, to be rendered again and again.
pub struct Ready {
    /// What was compiled.
    pub template: Template,
    engine: Engine,
    /// Parts that could not be compiled: what is stored may come from a program that allowed more.
    broken: BTreeMap<String, Fault>,
}

impl Ready {
    /// Compiles every part of `template` for a copy of `engine`.
    #[must_use]
    pub fn new(template: Template, engine: &Engine) -> Self {
        let mut engine = engine.clone();
        let mut broken = BTreeMap::new();
        for (part, source, escape) in template.sources() {
            if let Err(fault) = engine.compile(&part, escape, source) {
                broken.insert(part, fault);
            }
        }
        Self { template, engine, broken }
    }

    fn part(&self, part: &str, escape: Escape, variables: &minijinja::Value) -> Result<String, FieldError> {
        let made = match self.broken.get(part) {
            Some(fault) => Err(fault.clone()),
            None => self.engine.render(part, escape, variables),
        };
        made.map_err(|Fault { message }| FieldError::new(field_of(part), message))
    }

    /// One line of text: a line break in a value must not become one in a header.
    fn line(&self, part: &str, variables: &minijinja::Value) -> Result<String, FieldError> {
        let made = self.part(part, Escape::None, variables)?;
        let made = made.split_whitespace().collect::<Vec<_>>().join(" ");
        let n = made.chars().count();
        if n == 0 || n > LINE_MAX || made.chars().any(char::is_control) {
            let message = format!(
                "makes a line of {n} characters, but must make 1 to {LINE_MAX}, none of them a control character"
            );
            return Err(FieldError::new(field_of(part), message));
        }
        Ok(made)
    }

    /// What it says over `channel` with these variables.
    ///
    /// # Errors
    /// What is wrong, with the part: a variable that is missing, a limit, or no part for this channel.
    pub fn render(&self, channel: Channel, given: &Map<String, Value>) -> Result<Content, FieldError> {
        let mut variables = given.clone();
        for v in &self.template.variables {
            variables.entry(v.name.clone()).or_insert(Value::Null);
        }
        let variables = minijinja::Value::from(Serde(variables));
        let text = |part: &str| self.part(part, Escape::None, &variables);
        let parts = &self.template.parts;
        let none = || FieldError::new(field_of(channel.as_str()), "is missing");
        Ok(match channel {
            Channel::Email => {
                let e = parts.email.as_ref().ok_or_else(none)?;
                let html = e.html.as_ref().map(|_| self.part("email.html", Escape::Html, &variables)).transpose()?;
                Content::Email { subject: self.line("email.subject", &variables)?, text: text("email.text")?, html }
            }
            Channel::Push => {
                let p = parts.push.as_ref().ok_or_else(none)?;
                let mut data = Map::new();
                for key in p.data.keys() {
                    data.insert(key.clone(), Value::String(text(&format!("push.data.{key}"))?));
                }
                Content::Push { title: self.line("push.title", &variables)?, body: text("push.body")?, data }
            }
            Channel::Webhook => {
                parts.webhook.as_ref().ok_or_else(none)?;
                let body = self.part("webhook", Escape::Json, &variables)?;
                if let Err(e) = serde_json::from_str::<Value>(&body) {
                    return Err(FieldError::new(
                        field_of("webhook"),
                        format!(
                            "makes no JSON: {e}; values are written with their quotes, so write {{{{ name }}}} without any"
                        ),
                    ));
                }
                Content::Webhook { body }
            }
            Channel::Console => {
                parts.console.as_ref().ok_or_else(none)?;
                Content::Console { text: text("console")? }
            }
        })
    }
}

/// Checks a language tag: `default`, or two or more letters with parts behind `-` (BCP 47 in its usual shapes).
///
/// # Errors
/// A sentence that says what is right.
pub fn check_locale(locale: &str) -> Result<(), String> {
    let mut parts = locale.split('-');
    let first = parts.next().unwrap_or_default();
    let language = (2..=3).contains(&first.len()) && first.bytes().all(|b| b.is_ascii_lowercase());
    let rest = parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
    if locale == DEFAULT_LOCALE || (language && rest && locale.len() <= 35) {
        return Ok(());
    }
    Err(format!("is `{locale}`, but must be `{DEFAULT_LOCALE}` or a language such as `pt` or `pt-BR`"))
}

fn check_variable(name: &str) -> Result<(), String> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err("must be 1 to 64 letters, digits and `_`, not starting with a digit".to_owned())
}

/// The languages to look for, in order: `pt-BR`, `pt`, `default`.
#[must_use]
pub fn locale_chain(locale: &str) -> Vec<String> {
    let mut chain = Vec::new();
    let mut rest = locale;
    while !rest.is_empty() && rest != DEFAULT_LOCALE {
        chain.push(rest.to_owned());
        rest = rest.rsplit_once('-').map_or("", |(shorter, _)| shorter);
    }
    chain.push(DEFAULT_LOCALE.to_owned());
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::zone::Zones;

    fn engine() -> Engine {
        Engine::new(Zones::bundled())
    }

    fn template(parts: Value, variables: Value) -> Template {
        serde_json::from_value(json!({
            "code": "welcome", "locale": "default", "version": 1, "parts": parts, "variables": variables,
        }))
        .unwrap()
    }

    #[test]
    fn the_chain_goes_from_the_most_special_to_default() {
        assert_eq!(locale_chain("pt-BR"), ["pt-BR", "pt", "default"]);
        assert_eq!(locale_chain("zh-Hant-TW"), ["zh-Hant-TW", "zh-Hant", "zh", "default"]);
        assert_eq!(locale_chain("default"), ["default"]);
        for bad in ["", "x", "PT", "pt_BR", "pt-", "en-123456789", &"a-".repeat(50)] {
            assert!(check_locale(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_part_is_rendered_for_its_reader() {
        let t = template(
            json!({
                "email": {"subject": "Hi {{ name }}", "text": "Hi {{ name }}", "html": "<p>{{ name }}</p>"},
                "push": {"title": "{{ name }}", "body": "b", "data": {"k": "{{ name }}"}},
                "webhook": "{\"name\": {{ name }}, \"note\": {{ note }}}",
                "console": "{{ name }}{% if note %} {{ note }}{% endif %}",
            }),
            json!([{"name": "name"}, {"name": "note", "required": false}]),
        );
        assert_eq!(t.check(&engine()), Ok(()));
        let ready = Ready::new(t.clone(), &engine());
        let Value::Object(given) = json!({"name": "<A>\r\nBcc: x"}) else { unreachable!() };
        let Ok(Content::Email { subject, text, html }) = ready.render(Channel::Email, &given) else {
            panic!("no mail")
        };
        assert_eq!(subject, "Hi <A> Bcc: x", "no line break gets into a header");
        assert_eq!(text, "Hi <A>\r\nBcc: x");
        assert_eq!(html.unwrap(), "<p>&lt;A&gt;\r\nBcc: x</p>");
        let Ok(Content::Webhook { body }) = ready.render(Channel::Webhook, &given) else { panic!("no webhook") };
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, json!({"name": "<A>\r\nBcc: x", "note": null}));
        assert_eq!(t.missing(&Map::new()).collect::<Vec<_>>(), ["name"]);
    }

    #[test]
    fn what_would_fail_at_the_first_message_is_refused_at_save() {
        for (parts, variables, field, says) in [
            (json!({}), json!([]), "parts", "is empty"),
            (json!({"console": "{{ x }}"}), json!([]), "parts.console", "does not declare"),
            (json!({"console": "{{ x|nope }}"}), json!([{"name": "x"}]), "parts.console", "there are: abs"),
            (json!({"console": "{{ x.y.z }}"}), json!([{"name": "x"}]), "parts.console", "no value"),
            (json!({"console": "{% for"}), json!([]), "parts.console", "line 1"),
            (json!({"webhook": "{\"a\": x}"}), json!([]), "parts.webhook", "makes no JSON"),
            (json!({"email": {"subject": " ", "text": ""}}), json!([]), "parts.email.subject", "1 to 900"),
            (json!({"console": "x"}), json!([{"name": "a"}, {"name": "a"}]), "variables[1].name", "twice"),
            (json!({"console": "x"}), json!([{"name": "1"}]), "variables[0].name", "digit"),
            (json!({"console": "x".repeat(SOURCE_MAX + 1)}), json!([]), "parts.console", "at most"),
        ] {
            let faults = template(parts, variables).check(&engine()).unwrap_err();
            let first = faults.first().unwrap();
            assert!(first.field == field && first.message.contains(says), "{faults:?}");
        }
    }
}
