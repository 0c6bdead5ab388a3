//! Runs of the real binary: commands that end by themselves, and `app all` with flags of a test's own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Child};

use crate::support::{
    process::{binary, client, free_port},
    wait_until, within,
};

/// How one command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The one sentence that a command which failed says. Remarks may stand before it, nothing behind it.
    #[track_caller]
    pub(crate) fn sentence(&self) -> &str {
        let errors = self.err.lines().filter(|l| l.starts_with("error: ")).count();
        let last = self.err.lines().last().unwrap_or_default();
        assert!(errors == 1 && last.starts_with("error: "), "not one sentence: {self:?}");
        last
    }
}

/// Runs one command in a directory to its end.
pub(crate) async fn run_in(dir: &Path, args: &[&str], env: &[(&str, &str)], stdin: &str) -> Ended {
    let mut command = tokio::process::Command::from(binary());
    command.args(args).envs(env.iter().copied()).current_dir(dir).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command that reads no input may have closed it before.
    drop(input.write_all(stdin.as_bytes()).await);
    drop(input);
    let output = within("the command ends", child.wait_with_output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The command line, talking to one server.
pub(crate) struct Cli<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) url: &'a str,
}

impl Cli<'_> {
    pub(crate) async fn run(&self, args: &[&str], stdin: &str) -> Ended {
        run_in(self.dir, args, &[("APP_URL", self.url)], stdin).await
    }

    /// What a command that succeeds prints.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args, "").await;
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out.trim_end().to_owned()
    }

    /// What a command that succeeds prints for programs.
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["--json"]].concat()).await;
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?} --json printed no JSON ({e}): {out}"))
    }

    /// The sentence of a command that fails with this code.
    pub(crate) async fn fails(&self, args: &[&str], code: i32) -> String {
        let ended = self.run(args, "").await;
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        ended.sentence().to_owned()
    }
}

/// `app all` with flags of its own, on a free port and over the database of one directory; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) client: Client,
    log: PathBuf,
}

impl Server {
    /// Starts, and waits until it may take traffic.
    pub(crate) async fn start(dir: &Path, flags: &[&str]) -> Self {
        let (port, log) = (free_port(), dir.join("server.log"));
        let mut command = tokio::process::Command::from(binary());
        command.args(["all", "--port", &port.to_string(), "--store-url", "sqlite://app.db"]).args(flags);
        command.current_dir(dir).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let mut server = Self { child, url: format!("http://127.0.0.1:{port}"), client: client(), log };
        let ready = format!("{}/health/ready", server.url);
        wait_until("the server is ready", async || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended by itself:\n{}", server.log());
            server.client.get(&ready).send().await.is_ok_and(|r| r.status() == StatusCode::OK)
        })
        .await;
        server
    }

    /// Waits until it ends by itself.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        within("the server ends", self.child.wait()).await.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The text at a path, whatever the status.
    pub(crate) async fn text(&self, path: &str) -> String {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.client.post(format!("{}{path}", self.url)).json(body).send().await.unwrap()
    }
}
