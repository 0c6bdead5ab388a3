//! One connection to the relay, and the steps of one mail over it.
//!
//! Each step is noted before it begins, so that a failure or a time-out is judged by where it happened.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use lettre::{
    address::Envelope,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail, Rcpt, Rset},
        extension::{ClientId, Extension, MailParameter},
        response::{Response, Severity},
    },
};
use tokio::{net::TcpStream, time::Instant};

use super::{
    super::{Fault, Receipt, SendError, fault::one_line},
    compose::Composed,
};
use crate::{base::secret::Secret, config::SmtpTls};

/// Relays close idle connections after minutes; this is well before.
const IDLE: Duration = Duration::from_secs(30);
/// Many relays refuse more mails on one connection.
const USES: u32 = 100;

/// How far a send has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Waiting for a free place.
    Waiting,
    /// TCP, TLS if implicit, greeting and EHLO.
    Connecting,
    /// STARTTLS.
    Encrypting,
    /// AUTH.
    LoggingIn,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA, before the relay asked for the mail.
    Data,
    /// The mail itself.
    Body,
    /// From the final dot on, the relay may have taken it.
    Dot,
}

const STEPS: [Step; 9] = [
    Step::Waiting,
    Step::Connecting,
    Step::Encrypting,
    Step::LoggingIn,
    Step::Sender,
    Step::Recipient,
    Step::Data,
    Step::Body,
    Step::Dot,
];

/// The step of one send, which outlives its cancellation.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU8);

impl Progress {
    fn at(&self, step: Step) {
        self.0.store(step as u8, Ordering::Release);
    }

    pub(super) fn step(&self) -> Step {
        STEPS.get(usize::from(self.0.load(Ordering::Acquire))).copied().unwrap_or(Step::Dot)
    }
}

/// Why a mail was not taken.
pub(super) enum Failure {
    /// The meaning is known.
    Told(SendError),
    /// The same, and the connection is of no more use: the dialogue is out of step.
    Astray(SendError),
    /// To be judged by the step.
    Smtp(Error),
    /// The connection, used before, was of no more use.
    Worn,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Smtp(e)
    }
}

impl Failure {
    fn status(&self) -> Option<u16> {
        match self {
            Self::Told(_) | Self::Astray(_) | Self::Worn => None,
            Self::Smtp(e) => e.status().map(u16::from),
        }
    }

    /// Whether the connection had ended before it was used again, so that the relay has not seen this mail.
    pub(super) fn is_stale(&self, progress: &Progress) -> bool {
        match self {
            Self::Told(_) | Self::Astray(_) => false,
            Self::Worn => true,
            Self::Smtp(_) => progress.step() < Step::Body && matches!(self.status(), None | Some(421)),
        }
    }

    /// Whether the relay answered and goes on.
    pub(super) fn keeps_connection(&self) -> bool {
        match self {
            Self::Told(_) => true,
            Self::Astray(_) | Self::Worn => false,
            Self::Smtp(_) => self.status().is_some_and(|code| code != 421),
        }
    }
}

/// How to get in.
pub(super) struct Door {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) mode: SmtpTls,
    pub(super) tls: Option<TlsParameters>,
    pub(super) username: String,
    pub(super) password: Secret,
}

impl Door {
    /// Connects, encrypts and logs in.
    pub(super) async fn open(&self, progress: &Progress) -> Result<Session, Failure> {
        progress.at(Step::Connecting);
        let me = own_name();
        let implicit = self.tls.clone().filter(|_| self.mode == SmtpTls::Implicit);
        let server = (self.host.as_str(), self.port);
        let mut smtp = match implicit {
            Some(tls) => AsyncSmtpConnection::connect_tokio1(server, None, &me, Some(tls), None).await?,
            None => AsyncSmtpConnection::connect_with_transport(Box::new(prompt(server).await?), &me).await?,
        };
        if let Some(tls) = self.tls.clone().filter(|_| self.mode == SmtpTls::Starttls) {
            progress.at(Step::Encrypting);
            if !smtp.can_starttls() {
                // Going on without it would show the password to whoever took STARTTLS out of the answer.
                let why = "the relay does not offer STARTTLS, which `email.tls` asks for";
                return Err(Failure::Told(SendError::new(Fault::Configuration, "no_starttls", why)));
            }
            smtp.starttls(tls, &me).await?;
        }
        if !self.username.is_empty() {
            progress.at(Step::LoggingIn);
            let credentials = Credentials::new(self.username.clone(), self.password.reveal().to_owned());
            smtp.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(Session { smtp, uses: 0, since: Instant::now(), unfinished: false })
    }
}

/// A connection that holds nothing back. The library writes the mail and the final dot one after the other, and the system
/// would keep the dot until the relay has acknowledged the mail, which relays put off for 40 ms.
async fn prompt(server: (&str, u16)) -> Result<TcpStream, Failure> {
    let connected = async {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true).map(|()| stream)
    };
    connected.await.map_err(|e: std::io::Error| {
        Failure::Told(SendError::new(Fault::Provider, "connect_failed", format!("Connection error: {e}")))
    })
}

/// An open connection on which mails are sent one after another.
pub(super) struct Session {
    smtp: AsyncSmtpConnection,
    uses: u32,
    /// When it was used last.
    since: Instant,
    /// A mail was refused half-way, and the relay must be told to forget it.
    unfinished: bool,
}

impl Session {
    /// Whether it is worth another mail.
    pub(super) fn is_fresh(&self) -> bool {
        self.uses < USES && self.since.elapsed() < IDLE && !self.smtp.has_broken()
    }

    /// Sends one mail.
    pub(super) async fn transact(&mut self, mail: &Composed, progress: &Progress) -> Result<Receipt, Failure> {
        progress.at(Step::Sender);
        self.uses += 1;
        if self.unfinished {
            self.smtp.command(Rset).await.map_err(|_whatever| Failure::Worn)?;
        }
        self.unfinished = true;
        let options = self.options(&mail.envelope)?;
        self.smtp.command(Mail::new(mail.envelope.from().cloned(), options)).await?;
        progress.at(Step::Recipient);
        for to in mail.envelope.to() {
            self.smtp.command(Rcpt::new(to.clone(), Vec::new())).await?;
        }
        progress.at(Step::Data);
        let answer = self.smtp.command(Data).await?;
        if !answer.has_code(354) {
            return Err(astray(Fault::Provider, &answer));
        }
        progress.at(Step::Body);
        // The iterator is asked for more when all before is written: what follows then is the final dot.
        let end = std::iter::from_fn(|| {
            progress.at(Step::Dot);
            None
        });
        let answer = self.smtp.message_iter(std::iter::once(mail.bytes.as_slice()).chain(end)).await?;
        if answer.code().severity != Severity::PositiveCompletion {
            return Err(astray(Fault::Ambiguous, &answer));
        }
        self.unfinished = false;
        self.since = Instant::now();
        Ok(receipt(&answer))
    }

    fn options(&self, envelope: &Envelope) -> Result<Vec<MailParameter>, Failure> {
        if envelope.to().iter().chain(envelope.from()).all(|a| AsRef::<str>::as_ref(a).is_ascii()) {
            return Ok(Vec::new());
        }
        match self.smtp.server_info().supports_feature(Extension::SmtpUtfEight) {
            true => Ok(vec![MailParameter::SmtpUtfEight]),
            false => {
                let why = "the relay cannot send to an address with letters beyond ASCII (no SMTPUTF8)";
                let fault = Fault::Recipient { suppress: false };
                Err(Failure::Told(SendError::new(fault, "no_smtputf8", why)))
            }
        }
    }
}

/// The library takes any answer that is no refusal. One of the wrong kind belongs to another step, be it by a relay's mistake
/// or because somebody slipped an answer in before the connection was encrypted: it must not pass for a mail that was taken.
fn astray(fault: Fault, answer: &Response) -> Failure {
    let why = format!("the relay's answer {} does not belong here", answer.code());
    Failure::Astray(SendError::new(fault, "bad_answer", why))
}

fn receipt(answer: &Response) -> Receipt {
    let said = answer.message().collect::<Vec<_>>().join(" ");
    // Postfix, Exim and others: `queued as 4F2B1C0D`, `OK id=1tDxyz-…`.
    let id = ["queued as ", "id="].iter().find_map(|before| {
        let (_, rest) = said.split_once(before)?;
        rest.split_whitespace().next().filter(|id| id.len() <= 100).map(str::to_owned)
    });
    Receipt { provider_id: id, answer: one_line(&format!("{} {said}", answer.code())) }
}

/// How this host calls itself.
fn own_name() -> ClientId {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    match !name.is_empty() && name.bytes().all(plain) {
        true => ClientId::Domain(name.into_owned()),
        false => ClientId::default(),
    }
}
