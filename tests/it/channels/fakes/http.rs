//! An HTTP server whose every answer is scripted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Status, more headers (`name: value`), body.
    Say(u16, Vec<String>, String),
    /// Nothing, for ever.
    Hang,
    /// Closes the connection, having read all.
    Drop,
    /// The status, and a body that never ends.
    Endless(u16),
    /// The status, and a body that never comes.
    Stalled(u16),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Say(status, Vec::new(), String::new())
    }

    pub(crate) fn with(status: u16, headers: &[&str], body: impl ToString) -> Self {
        Self::Say(status, headers.iter().map(|h| (*h).to_owned()).collect(), body.to_string())
    }
}

type Script = Arc<dyn Fn(&Request, usize) -> Reply + Send + Sync>;

/// A server on a free port of loopback.
pub(crate) struct HttpFake {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl HttpFake {
    /// `script` is given each request and how many came before it.
    pub(crate) async fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, all): (Script, _) = (Arc::new(script), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // An end of the connection is an end like any other.
                tokio::spawn(serve(stream, script.clone(), all.clone()));
            }
        });
        Self { port, seen }
    }

    /// A server that always answers the same.
    pub(crate) async fn saying(reply: Reply) -> Self {
        Self::start(move |_, _| reply.clone()).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<Request>>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await? {
        let reply = {
            let mut seen = seen.lock().unwrap();
            let before = seen.len();
            seen.push(request.clone());
            script(&request, before)
        };
        match reply {
            Reply::Say(status, headers, body) => {
                let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
                let length = body.len();
                let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
                stream.write_all(text.as_bytes()).await?;
            }
            Reply::Hang => std::future::pending().await,
            Reply::Drop => return Ok(()),
            Reply::Stalled(status) => {
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 1000\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                std::future::pending().await
            }
            Reply::Endless(status) => {
                stream.write_all(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes()).await?;
                loop {
                    // Ends when the other side has had enough.
                    stream.write_all(&[b'x'; 1024]).await?;
                }
            }
        }
    }
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let mut head = head.into_iter();
    let line = head.next().unwrap_or_default();
    let headers: BTreeMap<String, String> =
        head.filter_map(|l| l.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))).collect();
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { line, headers, body }))
}
