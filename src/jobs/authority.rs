//! Which kinds of job ask more of a caller than its route does.
//!
//! A right belongs to a kind, and the queue asks for it wherever a job is submitted, cancelled, run
//! again, replayed or discarded, so that no front door can forget it. Rooms above say what a caller may
//! do as an [`Authority`]; who callers are, this room does not know.

use super::{error::JobsError, service::Jobs};
use crate::base::id::{JobId, KindName};

/// What a kind asks of those who act on its jobs, beside what their route asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KindRight {
    /// Nothing more.
    #[default]
    Jobs,
    /// Control of queues: its jobs change or remove other jobs.
    Queues,
    /// To write notifications; to see its jobs, to read them: they hold what is written to others.
    Notifications,
}

/// What a caller may do with jobs of kinds that ask for more. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// Control queues.
    pub control_queues: bool,
    /// See anybody's notifications.
    pub read_notifications: bool,
    /// Send, repeat and stop anybody's notifications.
    pub write_notifications: bool,
    /// Submit internal kinds: the program alone does.
    pub submit_internal: bool,
}

impl Authority {
    /// The program itself, which has asked for every right that is needed.
    pub const PROGRAM: Self =
        Self { control_queues: true, read_notifications: true, write_notifications: true, submit_internal: true };

    /// Whether no kind asks for more than this.
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.control_queues && self.read_notifications && self.write_notifications
    }

    /// Whether jobs of a kind with this right may be seen.
    #[must_use]
    pub const fn may_read(self, right: KindRight) -> bool {
        match right {
            KindRight::Jobs | KindRight::Queues => true,
            KindRight::Notifications => self.read_notifications,
        }
    }

    /// Whether jobs of a kind with this right may be submitted, stopped and run again.
    #[must_use]
    pub const fn may_act(self, right: KindRight) -> bool {
        match right {
            KindRight::Jobs => true,
            KindRight::Queues => self.control_queues,
            KindRight::Notifications => self.write_notifications,
        }
    }
}

impl KindRight {
    /// Refuses a caller who may not act on jobs of `kind`, whose right this is.
    pub(super) fn ask(self, kind: &KindName, by: Authority) -> Result<(), JobsError> {
        if by.may_act(self) {
            return Ok(());
        }
        Err(JobsError::Forbidden(format!(
            "jobs of the kind `{kind}` need an administrator, or an API key with the scope `{}`",
            self.scope()
        )))
    }

    /// The scope of an API key that has this right.
    const fn scope(self) -> &'static str {
        match self {
            Self::Jobs => "jobs:write",
            Self::Queues => "queues:control",
            Self::Notifications => "notifications:write",
        }
    }
}

impl Jobs {
    /// Whether the caller may see jobs of this kind. A kind that this process does not know asks for nothing more.
    #[must_use]
    pub fn may_read(&self, kind: &KindName, by: Authority) -> bool {
        by.may_read(self.right_of(kind))
    }

    pub(super) fn right_of(&self, kind: &KindName) -> KindRight {
        self.registry.get(kind.as_str()).map_or(KindRight::Jobs, |kind| kind.right)
    }

    /// Refuses a caller who may not act on jobs of this kind.
    pub(super) fn authorize(&self, kind: &KindName, by: Authority) -> Result<(), JobsError> {
        self.right_of(kind).ask(kind, by)
    }

    /// Refuses a caller who may not act on this job; one who may not even see it is told that there is none.
    pub(super) async fn authorize_job(&self, id: JobId, by: Authority) -> Result<(), JobsError> {
        // A kind never changes, so nothing can happen between this look and the act.
        if by.is_full() {
            return Ok(());
        }
        let job = self.get(id).await?;
        if !self.may_read(&job.kind, by) {
            return Err(JobsError::NotFound(format!("there is no job {id}")));
        }
        self.authorize(&job.kind, by)
    }
}
