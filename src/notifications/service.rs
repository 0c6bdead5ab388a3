//! What callers do with notifications: send, look, understand, cancel and replay them.
//!
//! A notification is accepted by submitting its job. What can be known to be wrong then is refused then; what may change
//! until it is sent (preferences, quiet hours, suppressions) is decided when it is sent, by [`Judge`].

use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    error::NotificationError,
    judge::{Case, Judge, Judged},
    model::{Channel, Notification, Payload, Status, TAG, To, kind_of},
};
use crate::{
    base::{
        clock::Timestamp,
        error::FieldError,
        id::{JobId, KindName, Priority, UserId},
        page::{Page, PageRequest},
    },
    jobs::{
        authority::Authority,
        error::JobsError,
        model::Job,
        service::{Jobs, Key, Origin, Submit, Submitted},
        store::JobFilter,
    },
};

/// Most bytes that the notifications of one request hold together: each keeps its own copy of the variables.
const REQUEST_MAX: usize = 32 << 20;

/// A request to send.
#[derive(Clone, Debug)]
pub struct Send {
    /// How.
    pub channel: Channel,
    /// To whom, with the path of each in the request.
    pub to: Vec<(To, String)>,
    /// What.
    pub template_code: String,
    /// In this language; each user's own if none.
    pub locale: Option<String>,
    /// What is put into the template.
    pub variables: Map<String, Value>,
    /// What sort of message it is.
    pub category: Option<String>,
    /// How urgent it is.
    pub priority: Option<Priority>,
    /// Not before this time.
    pub send_at: Option<Timestamp>,
    /// The caller's key.
    pub request_id: Option<String>,
}

/// Which notifications a list shows. What is none does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By this channel.
    pub channel: Option<Channel>,
    /// In this status.
    pub status: Option<Status>,
    /// To this user.
    pub user: Option<UserId>,
    /// From this template.
    pub template: Option<String>,
    /// Accepted at or after.
    pub created_after: Option<Timestamp>,
    /// Accepted before.
    pub created_before: Option<Timestamp>,
}

/// The notifications service.
pub struct Notifications {
    jobs: Arc<Jobs>,
    judge: Judge,
}

impl Notifications {
    /// A service over the job queue.
    #[must_use]
    pub fn new(jobs: Arc<Jobs>, judge: Judge) -> Self {
        Self { jobs, judge }
    }

    /// Everything that decides and sends.
    #[must_use]
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Accepts notifications: all or none. `render` makes the answer; with a key, the same request gets it again.
    ///
    /// # Errors
    /// If something is wrong with the request, the key was used for another one, or a store fails.
    pub async fn send(
        &self,
        send: &Send,
        origin: &Origin,
        key: Option<Key>,
        render: impl FnOnce(&[Job]) -> Vec<u8> + std::marker::Send,
    ) -> Result<Submitted, NotificationError> {
        // First of all: what was accepted once is answered again, even if it could not be accepted now.
        if let Some(key) = &key
            && let Some(before) = self.jobs.recall(key).await?
        {
            return Ok(before);
        }
        let payloads = self.payloads(send).await?;
        let asked = payloads.into_iter().map(|p| submit(send, p)).collect::<Result<Vec<_>, _>>()?;
        let bytes: usize = asked.iter().filter_map(|s| s.payload.as_ref()).map(|p| p.get().len()).sum();
        if bytes > REQUEST_MAX {
            let message = format!(
                "make {bytes} bytes for {} recipients, at most {REQUEST_MAX} are allowed in one request: send to fewer at once",
                asked.len()
            );
            return Err(NotificationError::field("variables", message));
        }
        self.jobs.accept(asked, &as_program(origin), key, render).await.map_err(told)
    }

    /// What would become of a request for its first recipient, now.
    ///
    /// # Errors
    /// As [`Notifications::send`].
    pub async fn explain(&self, send: &Send) -> Result<(Payload, Judged), NotificationError> {
        let payload = self.payloads(send).await?.into_iter().next();
        let payload = payload.ok_or_else(|| NotificationError::field("recipients", "is empty"))?;
        let clock = &self.judge.clock;
        let case = Case {
            id: clock.new_uuid(),
            payload: &payload,
            channel: send.channel,
            priority: send.priority.unwrap_or(Priority::MEDIUM),
            accepted_at: clock.now(),
        };
        let judged = self.judge.judge(case, true).await?;
        Ok((payload, judged))
    }

    /// One notification.
    ///
    /// # Errors
    /// If there is none, or the store fails.
    pub async fn get(&self, id: JobId) -> Result<Notification, NotificationError> {
        let missing = || NotificationError::NotFound(format!("there is no notification {id}"));
        let job = match self.jobs.get(id).await {
            Err(JobsError::NotFound(_)) => return Err(missing()),
            other => other?,
        };
        Notification::of(job).ok_or_else(missing)
    }

    /// One page of notifications, newest first. A page may be shorter than asked for and not be the last.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn list(&self, f: &Filter, page: PageRequest) -> Result<Page<Notification>, NotificationError> {
        let mut tags = vec![TAG.to_owned()];
        tags.extend(f.user.map(|u| format!("user:{u}")));
        tags.extend(f.template.as_ref().map(|t| format!("template:{t}")));
        let kind = f.channel.map(kind_of).map(|k| KindName::new(&k)).transpose();
        let filter = JobFilter {
            state: f.status.map(Status::state),
            kind: kind.map_err(|m| NotificationError::field("channel", m))?,
            queue: None,
            tags,
            created_after: f.created_after,
            created_before: f.created_before,
        };
        let found = self.jobs.list(&filter, page).await?;
        // Several statuses share a state.
        let data = found.data.into_iter().filter_map(Notification::of);
        let data = data.filter(|n| f.status.is_none_or(|wanted| n.status() == wanted)).collect();
        Ok(Page { data, next: found.next })
    }

    /// What would become of a notification that has not ended, now.
    ///
    /// # Errors
    /// If a store fails.
    pub async fn outlook(&self, n: &Notification) -> Result<Option<Judged>, NotificationError> {
        if n.job.state.is_final() {
            return Ok(None);
        }
        self.judge.judge(case(n), true).await.map(Some)
    }

    /// Cancels a notification that has not been sent. Answers it, and whether it is being sent at this moment.
    ///
    /// # Errors
    /// If there is none, it had ended, or the store fails.
    pub async fn cancel(&self, id: JobId) -> Result<(Notification, bool), NotificationError> {
        let before = self.get(id).await?;
        let (job, running) = self.jobs.cancel(id, Authority::PROGRAM).await?;
        Ok((Notification::of(job).unwrap_or(before), running))
    }

    /// Sends a notification again that failed, was cancelled, or waits.
    ///
    /// # Errors
    /// If there is none, its state does not allow it, or the store fails.
    pub async fn replay(&self, id: JobId) -> Result<Notification, NotificationError> {
        let before = self.get(id).await?;
        let job = match self.jobs.retry(id, Authority::PROGRAM).await {
            Err(JobsError::Conflict(_)) => {
                let status = before.status().as_str();
                return Err(NotificationError::Conflict(format!(
                    "notification {id} is {status}: only one that failed, was cancelled or waits is sent again; send a new one"
                )));
            }
            other => other?,
        };
        Ok(Notification::of(job).unwrap_or(before))
    }

    /// Splits a notification: one for each of these push tokens or endpoints of its user. Done again, it makes none.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn expand(
        &self,
        case: Case<'_>,
        endpoints: &[Uuid],
        correlation_id: Option<String>,
    ) -> Result<Vec<Uuid>, NotificationError> {
        let part =
            |endpoint: &Uuid| Payload { endpoint: Some(*endpoint), parent: Some(case.id), ..case.payload.clone() };
        let asked = endpoints.iter().map(part).map(|p| submit_as(case.channel, Some(case.priority), None, p));
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let origin = as_program(&Origin { correlation_id, ..Origin::default() });
        let done = self.jobs.submit(asked, &origin, Some(parts_of(case.id)), ids).await?;
        read_ids(&done.answer)
    }

    /// The parts that a run before this one split a notification into, if it did. Its user's addresses may be others by now;
    /// what was made first stands.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn expanded(&self, id: Uuid) -> Result<Option<Vec<Uuid>>, NotificationError> {
        self.jobs.recall(&parts_of(id)).await?.map(|done| read_ids(&done.answer)).transpose()
    }
}

/// The same request, asked by the program: whether its caller may send was decided before.
fn as_program(origin: &Origin) -> Origin {
    Origin { authority: Authority::PROGRAM, ..origin.clone() }
}

/// The key under which a notification is split: done again, it is split once.
fn parts_of(id: Uuid) -> Key {
    Key { scope: "notification".to_owned(), key: id.to_string(), request: Sha256::digest(id.as_bytes()).into() }
}

pub(super) fn read_ids(answer: &[u8]) -> Result<Vec<Uuid>, NotificationError> {
    serde_json::from_slice(answer).map_err(|e| super::templates::corrupt("parts", &e))
}

pub(super) fn ids(jobs: &[Job]) -> Vec<u8> {
    let ids: Vec<String> = jobs.iter().map(|j| j.id.to_string()).collect();
    // Texts always serialise.
    serde_json::to_vec(&ids).unwrap_or_default()
}

fn case(n: &Notification) -> Case<'_> {
    Case {
        id: n.job.id.0,
        payload: &n.payload,
        channel: n.channel,
        priority: n.job.priority,
        accepted_at: n.job.created_at,
    }
}

fn submit(send: &Send, payload: Payload) -> Result<Submit, NotificationError> {
    submit_as(send.channel, send.priority, send.send_at, payload)
}

fn submit_as(
    channel: Channel,
    priority: Option<Priority>,
    run_at: Option<Timestamp>,
    payload: Payload,
) -> Result<Submit, NotificationError> {
    let mut tags = vec![TAG.to_owned(), format!("template:{}", payload.template.code)];
    if let To::User(id) = &payload.to {
        tags.push(format!("user:{id}"));
    }
    let kind = KindName::new(&kind_of(channel)).map_err(|m| NotificationError::field("channel", m))?;
    let payload = serde_json::value::to_raw_value(&payload).map_err(super::templates::defect)?;
    Ok(Submit {
        kind,
        payload: Some(payload),
        queue: None,
        priority,
        run_at,
        delay: None,
        max_attempts: None,
        timeout: None,
        backoff: None,
        tags,
    })
}

/// The job queue's words for a caller that knows nothing of jobs.
fn told(e: JobsError) -> NotificationError {
    match e {
        JobsError::TooLarge { size, limit, .. } => {
            JobsError::TooLarge { field: "variables".to_owned(), size, limit }.into()
        }
        JobsError::Invalid(faults) => NotificationError::Invalid(
            faults
                .into_iter()
                .map(|f| if f.field.ends_with("run_at") { FieldError::new("send_at", f.message) } else { f })
                .collect(),
        ),
        other => other.into(),
    }
}
