//! The other sides: a relay and a receiver of webhooks that take everything, and note what came and when.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

/// How often each message came, and when last.
type Seen = HashMap<Uuid, (u32, Instant)>;

/// One of them.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Receiver {
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Waits until so many different messages are there.
    pub(crate) async fn wait(&self, n: usize) {
        let mut last = (0, Instant::now());
        while self.count() < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if self.count() > last.0 {
                last = (self.count(), Instant::now());
            }
            assert!(last.1.elapsed() < Duration::from_secs(30), "{} of {n} messages came, then none", last.0);
        }
    }

    /// When each message came. Checks that it were exactly these, each once.
    pub(crate) fn exactly(&self, expected: &[Uuid]) -> HashMap<Uuid, Instant> {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), expected.len(), "as many messages came as were sent");
        for id in expected {
            let times = seen.get(id).map_or(0, |(n, _)| *n);
            assert_eq!(times, 1, "message {id} came {times} times");
        }
        seen.iter().map(|(id, (_, at))| (*id, *at)).collect()
    }

    /// Messages a second, from the first to the last. Checks as [`Receiver::exactly`].
    pub(crate) fn rate(&self, expected: &[Uuid]) -> f64 {
        let at = self.exactly(expected);
        let (first, last) = (at.values().min().unwrap(), at.values().max().unwrap());
        (at.len() - 1) as f64 / (*last - *first).as_secs_f64()
    }
}

fn note(seen: &Mutex<Seen>, id: Option<Uuid>) {
    let id = id.expect("a message without an id came");
    seen.lock().unwrap().entry(id).and_modify(|(n, _)| *n += 1).or_insert((1, Instant::now()));
}

async fn listen<F: Future<Output = std::io::Result<()>> + Send>(
    serve: impl Fn(TcpStream, Arc<Mutex<Seen>>) -> F + Send + Copy + 'static,
) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Seen>>::default());
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let seen = Arc::clone(&seen);
            // A client that goes away is no matter.
            tokio::spawn(async move { drop(serve(socket, seen).await) });
        }
    });
    Receiver { port, seen: kept }
}

/// The id in `name: <id@host>` or `name: id`, if the line is that header's.
fn id_in(line: &[u8], name: &str) -> Option<Uuid> {
    let (head, value) = line.split_at_checked(name.len())?;
    if !head.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?.trim().trim_start_matches('<');
    Uuid::parse_str(text.get(..36)?).ok()
}

/// A relay that thinks about each mail for `delay`.
pub(crate) async fn smtp(delay: Duration) -> Receiver {
    listen(move |socket, seen| async move {
        let mut io = BufReader::with_capacity(16 * 1024, socket);
        io.write_all(b"220 relay\r\n").await?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if io.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let answer: &[u8] = match line.get(..4) {
                Some(b"EHLO") => b"250-relay\r\n250 8BITMIME\r\n",
                Some(b"DATA") => {
                    io.write_all(b"354 go on\r\n").await?;
                    let mut id = None;
                    loop {
                        line.clear();
                        io.read_until(b'\n', &mut line).await?;
                        if line == b".\r\n" {
                            break;
                        }
                        id = id.or_else(|| id_in(&line, "Message-ID:"));
                    }
                    note(&seen, id);
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    b"250 2.0.0 queued\r\n"
                }
                Some(b"QUIT") => return io.write_all(b"221 bye\r\n").await,
                _ => b"250 ok\r\n",
            };
            io.write_all(answer).await?;
        }
    })
    .await
}

/// A receiver of webhooks.
pub(crate) async fn http() -> Receiver {
    listen(|socket, seen| async move {
        let mut io = BufReader::with_capacity(16 * 1024, socket);
        let (mut line, mut body) = (Vec::new(), Vec::new());
        loop {
            let (mut id, mut length) = (None, 0);
            loop {
                line.clear();
                if io.read_until(b'\n', &mut line).await? == 0 {
                    return Ok(());
                }
                if line == b"\r\n" {
                    break;
                }
                let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
                if let Some(n) = text.strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                id = id.or_else(|| id_in(&line, "webhook-id:"));
            }
            body.resize(length, 0);
            io.read_exact(&mut body).await?;
            note(&seen, id);
            io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
    })
    .await
}
