//! Mail by SMTP: one message to one mailbox through one relay.
//!
//! It is built on `lettre`'s single connection rather than on its transport, because the transport tells neither at which step
//! a send broke nor which answers belong to which step, and that decides whether a mail may have been sent twice. The pool
//! is ours for the same reason: a connection that the relay closed while it was idle is no failure, until DATA begins.

mod compose;
mod dkim;
mod session;
mod verdict;
mod words;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters};
use tokio::sync::Semaphore;

use self::{
    compose::Composer,
    session::{Door, Failure, Progress, Session, Step},
    verdict::Errand,
};
use super::{Address, Channel, Fault, Message, OpenError, Receipt, SendError, fault::provider};
use crate::config::{self, SmtpTls};

/// What to wait before the attempt after the first, the second … when a relay says 4xx: grey-listing wants minutes.
const GREYLIST: [Duration; 5] = [minutes(1), minutes(5), minutes(15), minutes(60), minutes(240)];

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// How long to wait after attempt number `attempt` (from 1) ended with [`super::Fault::Later`] and no time of its own.
/// The caller adds jitter.
#[must_use]
pub fn greylist_wait(attempt: u32) -> Duration {
    let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    GREYLIST.get(at).copied().unwrap_or(minutes(240))
}

/// The channel to mailboxes.
pub struct Email {
    provider: String,
    composer: Composer,
    door: Door,
    timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl Email {
    /// Reads keys and certificates; connects to nothing. None if the configuration names no host.
    ///
    /// # Errors
    /// One sentence that names the key at fault.
    pub fn open(options: &config::Email) -> Result<Option<Self>, OpenError> {
        if options.host.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            provider: provider("smtp", &format!("{}:{}", options.host, options.port)),
            composer: Composer::new(options)?,
            door: Door {
                host: options.host.clone(),
                port: options.port,
                mode: options.tls,
                tls: tls(options)?,
                username: options.username.clone(),
                password: options.password.clone(),
            },
            timeout: options.timeout,
            permits: Semaphore::new(options.max_connections),
            idle: Mutex::default(),
        }))
    }

    async fn deliver(&self, message: &Message, progress: &Progress) -> Result<Receipt, Failure> {
        let mail = self.composer.compose(message).map_err(Failure::Told)?;
        // Never closed, so that an error cannot come.
        let _permit = self.permits.acquire().await.ok();
        if let Some(mut session) = self.take() {
            match session.transact(&mail, progress).await {
                Ok(receipt) => {
                    self.put(session);
                    return Ok(receipt);
                }
                Err(e) if e.is_stale(progress) => {}
                Err(e) => return self.refused(session, e, self.errand(message), progress.step()),
            }
        }
        let mut session = self.door.open(progress).await?;
        match session.transact(&mail, progress).await {
            Ok(receipt) => {
                self.put(session);
                Ok(receipt)
            }
            Err(e) => self.refused(session, e, self.errand(message), progress.step()),
        }
    }

    /// A relay that refused one mail takes others on the same connection; one that takes none from us may go on so on this
    /// connection after it was mended, as those do that read their rules when a connection begins.
    fn refused(&self, session: Session, e: Failure, errand: Errand<'_>, step: Step) -> Result<Receipt, Failure> {
        let lets_nobody = matches!(&e, Failure::Smtp(e) if verdict::of(step, e, errand).fault == Fault::Configuration);
        if e.keeps_connection() && !lets_nobody {
            self.put(session);
        }
        Err(e)
    }

    fn errand<'a>(&'a self, message: &'a Message) -> Errand<'a> {
        let mailbox = match &message.to {
            Address::Email { mailbox, .. } => mailbox,
            _ => "",
        };
        Errand { mailbox, relay: self.provider.trim_start_matches("smtp:") }
    }

    fn take(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Session::is_fresh);
        // The last one used is the likeliest to be open, and lets the others grow old when there is little to do.
        idle.pop()
    }

    fn put(&self, session: Session) {
        if session.is_fresh() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }
}

#[async_trait]
impl Channel for Email {
    fn provider(&self, _: &Address) -> String {
        self.provider.clone()
    }

    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let progress = Progress::default();
        let failure = match tokio::time::timeout(self.timeout, Box::pin(self.deliver(message, &progress))).await {
            Ok(Ok(receipt)) => return Ok(receipt),
            Ok(Err(Failure::Told(e) | Failure::Astray(e))) => e,
            Ok(Err(Failure::Smtp(e))) => verdict::of(progress.step(), &e, self.errand(message)),
            Ok(Err(Failure::Worn)) => verdict::worn(),
            Err(_elapsed) => verdict::timed_out(progress.step(), self.timeout),
        };
        Err(failure.without(&[self.door.password.reveal()]))
    }
}

fn tls(options: &config::Email) -> Result<Option<TlsParameters>, OpenError> {
    if options.tls == SmtpTls::None {
        return Ok(None);
    }
    let mut builder = TlsParameters::builder(options.host.clone());
    if options.ca_file != Path::new("") {
        let file = options.ca_file.display();
        let pem = std::fs::read(&options.ca_file)
            .map_err(|e| OpenError(format!("`email.ca_file` names {file}, which cannot be read: {e}")))?;
        let root = Certificate::from_pem(&pem)
            .map_err(|_detail| OpenError(format!("`email.ca_file` names {file}, which holds no certificate in PEM")))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(root);
    }
    let built = builder.build().map_err(|e| {
        OpenError(format!(
            "`email.tls` asks for encryption, but no root certificates are at hand ({e}); set `email.ca_file`"
        ))
    })?;
    Ok(Some(built))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_listing_is_waited_out_in_minutes() {
        let waits: Vec<u64> = (0..8).map(|n| greylist_wait(n).as_secs() / 60).collect();
        assert_eq!(waits, [1, 1, 5, 15, 60, 240, 240, 240]);
        assert_eq!(greylist_wait(u32::MAX), minutes(240));
    }
}
