//! The real binary as a process: started on a free port over a directory of its own, spoken to by HTTP, killed.

use std::{
    fs::File,
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use reqwest::{Client, StatusCode};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use super::{eventually, wait_until, within};

/// The program under test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("APP_")) {
        command.env_remove(name);
    }
    command
}

/// The program under test, started by a shell after this line of its own, such as `umask 000`.
pub(crate) fn binary_after(line: &str) -> Command {
    let program = binary();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{line}; exec \"$0\" \"$@\"")]).arg(program.get_program());
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command
}

/// Sends a signal. After SIGSTOP nothing of the process runs any more: its threads stop one after the other, and one that runs on
/// another core could still answer somebody.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).unwrap();
    if signal == Signal::STOP {
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
    }
}

/// Runs a command to its end, which must come by itself.
pub(crate) async fn output(command: Command) -> Output {
    let mut command = tokio::process::Command::from(command);
    within("the command ends", command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap()
}

/// A client that never waits for ever and never goes through a proxy.
pub(crate) fn client() -> Client {
    // The library is built without a default TLS provider; a second call finds it installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap()
}

/// One role of the program; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    client: Client,
    log: PathBuf,
}

impl Process {
    /// Starts and waits until it may take traffic, or has ended.
    pub(crate) async fn start(dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut process = Self::spawn(dir, env);
        process.ready().await;
        process
    }

    pub(crate) fn spawn(dir: &Path, env: &[(&str, &str)]) -> Self {
        let store = format!("sqlite://{}", dir.join("app.db").display());
        let mut all = vec![
            ("APP__SCHEDULER__LOST_AFTER", "1s"),
            ("APP__SCHEDULER__LOST_EVERY", "100ms"),
            ("APP__JOBS__CRASH_LIMIT", "1000"),
            ("APP__WORKER__CONCURRENCY", "8"),
        ];
        all.extend_from_slice(env);
        Self::launch("all", &dir.join("app.log"), &["--store-url", &store], &all)
    }

    /// Starts any role, with its log in a file.
    pub(crate) fn launch(role: &str, log: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::launch_as(binary(), role, log, args, env)
    }

    /// The same by a command of the caller's own.
    pub(crate) fn launch_as(mut command: Command, role: &str, log: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        command.arg(role).args(args).envs(env.iter().copied()).env("APP__LOG__FORMAT", "json");
        let port = matches!(role, "all" | "serve").then(free_port);
        if let Some(port) = port {
            command.args(["--port", &port.to_string()]);
        }
        let out = File::options().append(true).create(true).open(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).spawn().unwrap();
        let url = port.map_or_else(String::new, |port| format!("http://127.0.0.1:{port}"));
        Self { child, url, client: client(), log: log.to_owned() }
    }

    /// Waits until it says so itself: roles that do not listen have no other way.
    pub(crate) async fn said(&mut self, message: &str) {
        wait_until(&format!("a process says `{message}`"), async || {
            assert!(self.child.try_wait().unwrap().is_none(), "the process ended by itself:\n{}", self.log());
            self.log().contains(&format!("\"{message}\""))
        })
        .await;
    }

    /// Waits until it may take traffic; a process that ends before is no failure here.
    pub(crate) async fn ready(&mut self) {
        let url = format!("{}/health/ready", self.url);
        let client = self.client.clone();
        wait_until("the process is ready or gone", async || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none_or(|s| s.code().is_none()), "the process ended by itself:\n{}", self.log());
            ended.is_some() || client.get(&url).send().await.is_ok_and(|r| r.status() == StatusCode::OK)
        })
        .await;
    }

    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, to_send: Signal) {
        signal(&self.child, to_send);
    }

    /// Waits until it ends by itself.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the process ends", async || self.child.try_wait().unwrap()).await
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it has died of SIGKILL.
    pub(crate) fn was_killed(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|s| s.signal() == Some(9))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.ok()?;
        let ok = answer.status().is_success();
        answer.json().await.ok().filter(|_| ok)
    }

    /// The accepted thing; none if the process did not answer or refused.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Option<Value> {
        let answer = self.client.post(format!("{}{path}", self.url)).json(body).send().await.ok()?;
        let ok = answer.status().is_success();
        answer.json().await.ok().filter(|_| ok)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A private server of `tests/tools/server`; killed when dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Starts it; whoever uses it waits until it answers.
    pub(crate) fn start(name: &str, dir: &Path, port: u16) -> Self {
        let child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/server"))
            .args([name.as_ref(), dir.as_os_str()])
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn signal(&self, to_send: Signal) {
        signal(&self.0, to_send);
    }

    /// Waits until it ends by itself.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the server ends", async || self.0.try_wait().unwrap()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
