//! Parties that are not ours, in Python: a mail server, and the libraries that receivers use to check what we sent.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::Mutex,
};

use crate::support::within;

fn python(script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".tools/venv/bin/python");
    assert!(python.exists(), "the tests' Python is missing: run `make tools`");
    let mut command = Command::new(python);
    command.arg(root.join("tests/it/channels/parties").join(script)).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Asks a library; fails the test if it refuses.
pub(crate) async fn check(ask: &str, mut request: Value) -> Value {
    request["ask"] = json!(ask);
    let mut child = python("check.py").spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(request.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = within("the library answers", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "the library refuses {ask}: {request}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A mail server.
pub(crate) struct MailParty {
    _child: Child,
    lines: Mutex<Lines<BufReader<ChildStdout>>>,
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
}

impl MailParty {
    /// `args`: how it encrypts, and who may log in.
    pub(crate) async fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Its complaints of clients that give up are expected, and told only if it cannot start.
        let complaints = dir.path().join("stderr.txt");
        let stderr = std::fs::File::create(&complaints).unwrap();
        let mut child = python("mail.py").arg(dir.path()).args(args).stderr(stderr).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = within("the mail server listens", lines.next_line()).await.unwrap();
        let port = port.unwrap_or_else(|| panic!("{}", std::fs::read_to_string(&complaints).unwrap()));
        Self { _child: child, lines: Mutex::new(lines), port: port.parse().unwrap(), dir }
    }

    /// The next mail that it took.
    pub(crate) async fn mail(&self) -> Value {
        let line = within("a mail arrives", self.lines.lock().await.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
