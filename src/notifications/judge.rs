//! What becomes of a notification now: one function decides, and writes down why.
//!
//! The worker acts on the answer, `explain` shows it before anything is sent, and `trace` afterwards. So what is told is what
//! is done. Decisions are made when a message is sent, not when it is accepted: a preference that was changed in between
//! counts.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    breaker::{Breakers, Position},
    channels::{Address, Channel as Way, Channels, Content, Message},
    error::NotificationError,
    links::{Claims, Links},
    model::{Channel, Payload, Step, To},
    sink::Sink,
    suppressions::Suppressions,
    template::model::Ready,
    templates::Templates,
};
use crate::{
    base::{
        clock::{Clock, Timestamp},
        error::Kind,
        id::Priority,
        zone::Zones,
    },
    cache::{Admission, Cache, Rate},
    users::{
        model::{PushKind, User},
        service::Users,
    },
};

/// From this priority on a message is sent in quiet hours, too.
pub const URGENT: u8 = 8;
/// So long a notification waits for a provider that lets nothing pass, from when it could first be sent.
pub const PATIENCE: Duration = Duration::from_secs(3 * 86_400);

/// How often messages may be sent by each channel; no limit if none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Mails.
    pub email: Option<Rate>,
    /// Push messages.
    pub push: Option<Rate>,
    /// Webhook calls.
    pub webhook: Option<Rate>,
}

impl Rates {
    fn of(&self, channel: Channel) -> Option<Rate> {
        match channel {
            Channel::Email => self.email,
            Channel::Push => self.push,
            Channel::Webhook => self.webhook,
            Channel::Console => None,
        }
    }
}

/// Everything that decides and sends.
#[derive(Clone)]
pub struct Judge {
    /// Recipients.
    pub users: Arc<Users>,
    /// What is said.
    pub templates: Templates,
    /// To whom nothing is said.
    pub suppressions: Suppressions,
    /// Which providers rest.
    pub breakers: Breakers,
    /// Ways out.
    pub channels: Arc<Channels>,
    /// The way out where none is set up.
    pub sink: Sink,
    /// Links to unsubscribe.
    pub links: Links,
    /// Limits.
    pub cache: Arc<dyn Cache>,
    /// Limits.
    pub rates: Rates,
    /// Time.
    pub clock: Clock,
    /// By whose clocks users live.
    pub zones: Zones,
}

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The notification's id.
    pub id: Uuid,
    /// What it says and to whom.
    pub payload: &'a Payload,
    /// How it goes by.
    pub channel: Channel,
    /// How urgent it is.
    pub priority: Priority,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

impl Case<'_> {
    /// Whether it has waited long enough to be given up: nobody wants a message of last week.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        let since = self.payload.send_at.unwrap_or_default().max(self.accepted_at);
        now >= since.plus(PATIENCE)
    }
}

/// What becomes of it now.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It is to be sent.
    Send {
        /// As this.
        message: Box<Message>,
        /// To this provider.
        provider: String,
        /// One of a user's push tokens or endpoints.
        endpoint: Option<Uuid>,
    },
    /// It is to be split: one for each of these push tokens or endpoints.
    Expand(Vec<Uuid>),
    /// It is not to be sent, for this reason.
    Skip(&'static str),
    /// Not now.
    Wait {
        /// Why: `quiet_hours`, `rate_limited`, `breaker_open`.
        code: &'static str,
        /// Until when.
        until: Timestamp,
    },
    /// Never: it cannot be sent.
    Fail {
        /// A stable word.
        code: &'static str,
        /// A sentence.
        message: String,
    },
}

impl Decision {
    /// As written in JSON.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Send { .. } => "send",
            Self::Expand(_) => "expand",
            Self::Skip(_) => "skip",
            Self::Wait { .. } => "wait",
            Self::Fail { .. } => "fail",
        }
    }
}

/// A decision and the way to it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The way.
    pub steps: Vec<Step>,
    /// The decision.
    pub decision: Decision,
}

/// An address, and which of a user's it is.
type Place = (Address, Option<Uuid>);

/// The steps so far.
struct Path(Vec<Step>);

impl Path {
    fn pass(&mut self, step: &str, detail: impl Into<String>) {
        self.0.push(Step { step: step.to_owned(), outcome: "pass".to_owned(), detail: detail.into() });
    }

    fn end(mut self, step: &str, detail: impl Into<String>, decision: Decision) -> Judged {
        let outcome = match decision {
            Decision::Wait { .. } => "wait",
            Decision::Send { .. } | Decision::Expand(_) => "pass",
            Decision::Skip(_) | Decision::Fail { .. } => "stop",
        };
        self.0.push(Step { step: step.to_owned(), outcome: outcome.to_owned(), detail: detail.into() });
        Judged { steps: self.0, decision }
    }
}

impl Judge {
    /// Decides. A dry run takes no place in a rate limit and asks no breaker to let it pass.
    ///
    /// # Errors
    /// If a store fails: nothing is decided then.
    pub async fn judge(&self, case: Case<'_>, dry: bool) -> Result<Judged, NotificationError> {
        let mut way = Path(Vec::new());
        let user = match &case.payload.to {
            To::User(id) => match self.users.get(*id).await {
                Ok(user) => Some(user),
                Err(e) if e.kind() == Kind::NotFound => {
                    let message = format!("there is no user {id} any more");
                    let decision = Decision::Fail { code: "recipient_gone", message: message.clone() };
                    return Ok(way.end("recipient", message, decision));
                }
                Err(e) => return Err(e.into()),
            },
            To::Email(_) | To::Console(_) => None,
        };
        if user.as_ref().is_some_and(|u| u.disabled) {
            return Ok(way.end("recipient", "the user is disabled", Decision::Skip("user_disabled")));
        }
        let places = match places(case, user.as_ref()) {
            Ok(places) if places.is_empty() => {
                let detail = format!("nothing is known of the recipient to reach by {}", case.channel.as_str());
                return Ok(way.end("recipient", detail, Decision::Skip("no_address")));
            }
            Ok(places) => places,
            Err(message) => {
                let decision = Decision::Fail { code: "unreachable", message: message.clone() };
                return Ok(way.end("recipient", message, decision));
            }
        };
        way.pass("recipient", format!("{} address(es) for {}", places.len(), case.channel.as_str()));
        if let Some(user) = &user {
            let category = case.payload.category.as_deref().and_then(|c| c.parse().ok());
            let (allowed, rule) = user.preferences.allows(case.channel, category.as_ref());
            let said = format!("decided by {}", rule.as_str());
            if !allowed {
                return Ok(way.end("preference", said, Decision::Skip("preference")));
            }
            way.pass("preference", said);
        }
        let category = case.payload.category.as_deref();
        let looked = places.iter().map(|(address, _)| self.suppressions.forbids(address, category));
        let entries = futures_util::future::try_join_all(looked).await?;
        let mut free = Vec::new();
        let mut why = None;
        for (place, entry) in places.into_iter().zip(entries) {
            match entry {
                Some(entry) => why = Some(entry),
                None => free.push(place),
            }
        }
        if let (true, Some(entry)) = (free.is_empty(), &why) {
            let said = format!("{} is suppressed: {}", entry.address, entry.reason.as_str());
            return Ok(way.end("suppression", said, Decision::Skip("suppressed")));
        }
        way.pass("suppression", if why.is_some() { "some addresses are on the list" } else { "not on the list" });
        if free.len() > 1 {
            let ids = free.iter().filter_map(|(_, id)| *id).collect();
            let said = format!("one notification for each of {} addresses", free.len());
            return Ok(way.end("recipient", said, Decision::Expand(ids)));
        }
        let Some(place) = free.pop() else {
            return Ok(way.end("recipient", "no address is left", Decision::Skip("no_address")));
        };
        self.when(case, user.as_ref(), place, way, dry).await
    }

    /// Decides when it is sent, and what it says.
    async fn when(
        &self,
        case: Case<'_>,
        user: Option<&User>,
        (address, endpoint): Place,
        mut way: Path,
        dry: bool,
    ) -> Result<Judged, NotificationError> {
        let now = self.clock.now();
        if let Some(user) = user.filter(|_| matches!(case.channel, Channel::Email | Channel::Push)) {
            match user.quiet_until(now, &self.zones) {
                Some(until) if case.priority.get() < URGENT => {
                    let said = format!("quiet hours in {} until {until}", user.time_zone);
                    return Ok(way.end("quiet_hours", said, Decision::Wait { code: "quiet_hours", until }));
                }
                Some(until) => {
                    way.pass("quiet_hours", format!("priority {} passes them (until {until})", case.priority.get()))
                }
                None => way.pass("quiet_hours", "not now"),
            }
        }
        let frozen = &case.payload.template;
        let content = match self.templates.version(frozen).await {
            Ok(template) => render(&template, case),
            Err(e) if e.kind() == Kind::NotFound => Err(e.to_string()),
            Err(e) => return Err(e),
        };
        let content = match content {
            Ok(content) => content,
            Err(message) => {
                return Ok(way.end("template", message.clone(), Decision::Fail { code: "template", message }));
            }
        };
        let looked = case.payload.locales.join(" → ");
        way.pass(
            "template",
            format!("{} version {} in {} (looked for {looked})", frozen.code, frozen.version, frozen.locale),
        );
        let provider = self.way_to(&address).provider(&address);
        if let Some(rate) = self.rates.of(case.channel) {
            if dry {
                way.pass("rate_limit", "not asked in a dry run");
            } else if let Ok(Admission::RetryAfter(wait)) =
                self.cache.admit(&format!("rate:{}", case.channel.as_str()), rate).await
            {
                let until = now.plus(wait.max(Duration::from_millis(1)));
                let said = format!("{} has reached its rate, next place at {until}", case.channel.as_str());
                return Ok(way.end("rate_limit", said, Decision::Wait { code: "rate_limited", until }));
            } else {
                way.pass("rate_limit", "there is a place");
            }
        }
        // Before the breaker is asked: whom it lets pass must send.
        let unsubscribe = self.unsubscribe(case).await?;
        let open = if dry {
            let state = self.breakers.state(&provider).await;
            state.until.filter(|until| state.position == Position::Open && *until > now).map_or(Ok(()), Err)
        } else {
            self.breakers.admit(&provider).await
        };
        if let Err(until) = open {
            let said = format!("the breaker of {provider} is open, next try at {until}");
            if case.is_overdue(now) {
                let message = format!("not sent within 3 days: {said}");
                return Ok(way.end("breaker", message.clone(), Decision::Fail { code: "given_up", message }));
            }
            return Ok(way.end("breaker", said, Decision::Wait { code: "breaker_open", until }));
        }
        let said = format!("the breaker of {provider} lets it pass");
        let message = Box::new(Message {
            id: case.id,
            accepted_at: case.accepted_at,
            now,
            to: address,
            content,
            urgent: case.priority.get() >= URGENT,
            unsubscribe,
        });
        Ok(way.end("breaker", said, Decision::Send { message, provider, endpoint }))
    }

    /// The way out to an address: the channel that is set up for it, else the sink.
    pub(super) fn way_to(&self, address: &Address) -> &dyn Way {
        self.channels.find(address).unwrap_or(&self.sink)
    }

    /// The link for mails of a category. What has no category (a new password) cannot be unsubscribed.
    async fn unsubscribe(&self, case: Case<'_>) -> Result<Option<String>, NotificationError> {
        if case.channel != Channel::Email || case.payload.category.is_none() {
            return Ok(None);
        }
        let claims = Claims { to: case.payload.to.clone(), category: case.payload.category.clone() };
        self.links.link(&claims).await.map(Some)
    }
}

fn render(template: &Ready, case: Case<'_>) -> Result<Content, String> {
    template.render(case.channel, &case.payload.variables).map_err(|e| e.to_string())
}

/// Every address of the recipient in this channel.
fn places(case: Case<'_>, user: Option<&User>) -> Result<Vec<Place>, String> {
    let wanted = |id: Uuid| case.payload.endpoint.is_none_or(|only| only == id);
    Ok(match (case.channel, &case.payload.to, user) {
        (Channel::Console, _, _) => vec![(Address::Console, None)],
        (Channel::Email, To::Email(mailbox), _) => {
            vec![(Address::Email { mailbox: mailbox.clone(), name: None }, None)]
        }
        (Channel::Email, _, Some(user)) => {
            let name = (!user.name.is_empty()).then(|| user.name.clone());
            vec![(Address::Email { mailbox: user.email.clone(), name }, None)]
        }
        (Channel::Push, _, Some(user)) => user
            .push_tokens
            .iter()
            .filter(|t| wanted(t.id.0))
            .map(|t| {
                let address = match &t.kind {
                    PushKind::Fcm { token } => Address::Fcm { token: token.clone() },
                    PushKind::WebPush { endpoint, p256dh, auth } => {
                        Address::WebPush { endpoint: endpoint.clone(), p256dh: p256dh.clone(), auth: auth.clone() }
                    }
                };
                (address, Some(t.id.0))
            })
            .collect(),
        (Channel::Webhook, _, Some(user)) => user
            .endpoints
            .iter()
            .filter(|e| wanted(e.id.0) && !e.disabled)
            .map(|e| (Address::Webhook { url: e.url.clone(), secrets: e.secrets.clone() }, Some(e.id.0)))
            .collect(),
        (channel, _, None) => {
            return Err(format!("the channel {} needs a user as recipient", channel.as_str()));
        }
    })
}
