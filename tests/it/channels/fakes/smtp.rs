//! A mail relay whose every answer is scripted.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

/// Where a dialogue stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// `greeting`, `EHLO`, `STARTTLS`, `AUTH`, `MAIL`, `RCPT`, `DATA`, `body` (the mail begins), `.` (it has ended), `RSET`
    /// and `idle` (the mail was taken).
    pub(crate) step: &'static str,
    /// The how many-th connection, from 0.
    pub(crate) connection: usize,
    /// The how many-th mail on it, from 0.
    pub(crate) mail: usize,
}

/// What it does there.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// What a relay does that works.
    Right,
    /// Says this instead.
    Say(&'static str),
    /// Nothing, for ever.
    Hang,
    /// Closes the connection.
    Drop,
}

type Script = Arc<dyn Fn(At) -> Act + Send + Sync>;

#[derive(Default)]
struct Seen {
    mails: Mutex<Vec<String>>,
    commands: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    peak: AtomicUsize,
}

/// A relay on a free port of loopback.
pub(crate) struct SmtpFake {
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

impl SmtpFake {
    pub(crate) fn start(script: impl Fn(At) -> Act + Send + Sync + 'static) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a mail of a few megabytes cannot be sent to a relay that does not read it.
        socket.set_recv_buffer_size(8 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let (script, all): (Script, _) = (Arc::new(script), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen) = (script.clone(), all.clone());
                tokio::spawn(async move {
                    let connection = seen.connections.fetch_add(1, Ordering::SeqCst);
                    let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                    seen.peak.fetch_max(open, Ordering::SeqCst);
                    let talk = Talk { stream: BufReader::new(stream), script, seen: seen.clone(), connection, mail: 0 };
                    // An end of the connection is an end like any other.
                    drop(talk.run().await);
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, seen }
    }

    /// A relay that does one thing at one step.
    pub(crate) fn failing(step: &'static str, act: Act) -> Self {
        Self::start(move |at| if at.step == step { act.clone() } else { Act::Right })
    }

    pub(crate) fn mails(&self) -> Vec<String> {
        self.seen.mails.lock().unwrap().clone()
    }

    pub(crate) fn commands(&self) -> Vec<String> {
        self.seen.commands.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Most connections that were open at once.
    pub(crate) fn peak(&self) -> usize {
        self.seen.peak.load(Ordering::SeqCst)
    }
}

struct Talk {
    stream: BufReader<TcpStream>,
    script: Script,
    seen: Arc<Seen>,
    connection: usize,
    mail: usize,
}

/// The dialogue is over.
struct Over;

impl Talk {
    async fn run(mut self) -> Result<(), Over> {
        self.act("greeting", "220 fake ESMTP").await?;
        loop {
            let line = self.line().await?;
            self.seen.commands.lock().unwrap().push(line.clone());
            let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match word.as_str() {
                "EHLO" => {
                    // An answer of one's own can leave out what is offered.
                    self.act("EHLO", "250-fake\r\n250-AUTH PLAIN LOGIN\r\n250 ENHANCEDSTATUSCODES").await?;
                }
                "STARTTLS" => {
                    self.act("STARTTLS", "220 go").await?;
                }
                "AUTH" => {
                    self.act("AUTH", "235 2.7.0 welcome").await?;
                }
                "MAIL" => {
                    self.act("MAIL", "250 2.1.0 ok").await?;
                }
                "RCPT" => {
                    self.act("RCPT", "250 2.1.5 ok").await?;
                }
                "RSET" => {
                    self.act("RSET", "250 2.0.0 ok").await?;
                }
                "DATA" => {
                    if self.act("DATA", "354 go on").await? {
                        self.take().await?;
                    }
                }
                "QUIT" => {
                    self.say("221 bye").await?;
                    return Err(Over);
                }
                _ => self.say("500 what?").await?,
            }
        }
    }

    async fn take(&mut self) -> Result<(), Over> {
        match (self.script)(self.at("body")) {
            Act::Drop => {
                // Before the end: a byte of it is enough.
                self.stream.read_u8().await.map_err(|_end| Over)?;
                return Err(Over);
            }
            Act::Hang => std::future::pending().await,
            _ => {}
        }
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                break;
            }
            text.push_str(&line);
            text.push_str("\r\n");
        }
        self.seen.mails.lock().unwrap().push(text);
        self.act(".", "250 2.0.0 queued as 77").await?;
        self.act("idle", "").await?;
        self.mail += 1;
        Ok(())
    }

    fn at(&self, step: &'static str) -> At {
        At { step, connection: self.connection, mail: self.mail }
    }

    /// Acts as scripted; true if it did what is right.
    async fn act(&mut self, step: &'static str, right: &'static str) -> Result<bool, Over> {
        match (self.script)(self.at(step)) {
            Act::Right => {
                if !right.is_empty() {
                    self.say(right).await?;
                }
                Ok(true)
            }
            Act::Say(text) => {
                self.say(text).await?;
                Ok(false)
            }
            Act::Hang => std::future::pending().await,
            Act::Drop => Err(Over),
        }
    }

    async fn say(&mut self, text: &str) -> Result<(), Over> {
        self.stream.write_all(format!("{text}\r\n").as_bytes()).await.map_err(|_end| Over)
    }

    async fn line(&mut self) -> Result<String, Over> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(n) if n > 0 => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
            _ => Err(Over),
        }
    }
}
