//! Checks a request to send, and freezes what each recipient will be told.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt};

use super::{
    error::NotificationError,
    model::{Channel, Frozen, Payload, To, check_name},
    service::{Notifications, Send},
    template::model::{Ready, Template},
};
use crate::base::error::{FieldError, Kind};

/// Most recipients of one request.
const RECIPIENTS_MAX: usize = 1000;
/// How many recipients of one request are looked up at once.
const LOOK_UPS: usize = 16;

/// Templates that were found for one request, by language, with the languages that were looked for.
type Found = HashMap<String, (Frozen, Vec<String>)>;

impl Notifications {
    /// Checks a request, and freezes what each recipient will be told.
    pub(super) async fn payloads(&self, send: &Send) -> Result<Vec<Payload>, NotificationError> {
        let mut faults = Vec::new();
        if !(1..=RECIPIENTS_MAX).contains(&send.to.len()) {
            let message = format!("holds {}, but must hold 1 to {RECIPIENTS_MAX}", send.to.len());
            faults.push(FieldError::new("recipients", message));
        }
        if let Some(Err(message)) = send.category.as_deref().map(check_name) {
            faults.push(FieldError::new("category", message));
        }
        if let Some(Err(message)) = send.locale.as_deref().map(super::template::model::check_locale) {
            faults.push(FieldError::new("locale", message));
        }
        if !faults.is_empty() {
            return Err(NotificationError::Invalid(faults));
        }
        let look_ups: Vec<_> = send.to.iter().map(|(to, field)| self.locale(send, to, field)).collect();
        let locales: Vec<_> = stream::iter(look_ups).buffered(LOOK_UPS).collect().await;
        let mut found = Found::new();
        let mut payloads = Vec::with_capacity(send.to.len());
        for ((to, field), locale) in send.to.iter().zip(locales) {
            let made = match locale {
                Ok(locale) => self.payload(send, to, field, locale, &mut found).await,
                Err(e) => Err(e),
            };
            match made {
                Ok(payload) => payloads.push(payload),
                Err(NotificationError::Invalid(more)) => faults.extend(more),
                Err(e) => return Err(e),
            }
            // What is wrong with the message is wrong for everybody.
            if faults.len() >= 20 || faults.iter().any(|f| f.field != *field && !f.field.starts_with("recipients")) {
                break;
            }
        }
        if faults.is_empty() { Ok(payloads) } else { Err(NotificationError::Invalid(faults)) }
    }

    /// The language for one recipient, who must exist.
    async fn locale(&self, send: &Send, to: &To, field: &str) -> Result<String, NotificationError> {
        let own = match to {
            To::User(id) => match self.judge().users.get(*id).await {
                Ok(user) => user.locale,
                Err(e) if e.kind() == Kind::NotFound => return Err(NotificationError::field(field, e.to_string())),
                Err(e) => return Err(e.into()),
            },
            To::Email(_) | To::Console(_) => super::template::model::DEFAULT_LOCALE.to_owned(),
        };
        Ok(send.locale.clone().unwrap_or(own))
    }

    async fn payload(
        &self,
        send: &Send,
        to: &To,
        field: &str,
        locale: String,
        found: &mut Found,
    ) -> Result<Payload, NotificationError> {
        reachable(send.channel, to).map_err(|m| NotificationError::field(field, m))?;
        let (template, locales) = match found.get(&locale) {
            Some(known) => known.clone(),
            None => {
                let resolved = self.resolve(send, &locale).await?;
                found.insert(locale, resolved.clone());
                resolved
            }
        };
        Ok(Payload {
            v: Payload::VERSION,
            to: to.clone(),
            endpoint: None,
            parent: None,
            template,
            locales,
            variables: send.variables.clone(),
            category: send.category.clone(),
            request_id: send.request_id.clone(),
            send_at: send.send_at,
        })
    }

    /// The version of the template that is sent in this language, found to say what is asked of it.
    async fn resolve(&self, send: &Send, locale: &str) -> Result<(Frozen, Vec<String>), NotificationError> {
        let templates = &self.judge().templates;
        let (saved, locales) = templates.resolve(&send.template_code, locale).await.map_err(|e| match e {
            NotificationError::NotFound(m) => NotificationError::field("template_code", m),
            other => other,
        })?;
        let ready = templates.ready(saved.template);
        check(&ready, send)?;
        let Template { code, locale, version, .. } = &ready.template;
        Ok((Frozen { code: code.clone(), locale: locale.clone(), version: *version }, locales))
    }
}

fn reachable(channel: Channel, to: &To) -> Result<(), String> {
    match (channel, to) {
        (_, To::User(_)) | (Channel::Console, To::Console(_)) => Ok(()),
        (Channel::Email, To::Email(mailbox)) => crate::users::check::email(mailbox).map(drop),
        _ => Err(format!("cannot be reached by the channel `{}`", channel.as_str())),
    }
}

/// Checks that a template can say what is asked of it.
fn check(ready: &Ready, send: &Send) -> Result<(), NotificationError> {
    let template = &ready.template;
    if !template.channels().contains(&send.channel) {
        let message = format!(
            "`{}` in `{}` has no part for the channel `{}`",
            template.code,
            template.locale,
            send.channel.as_str()
        );
        return Err(NotificationError::field("template_code", message));
    }
    let missing: Vec<FieldError> = template
        .missing(&send.variables)
        .map(|name| FieldError::new(format!("variables.{name}"), "is required by the template"))
        .collect();
    if !missing.is_empty() {
        return Err(NotificationError::Invalid(missing));
    }
    // What cannot be rendered now cannot be rendered later: the version and the variables are frozen.
    ready
        .render(send.channel, &send.variables)
        .map(drop)
        .map_err(|e| NotificationError::Invalid(vec![e.under("template")]))
}
