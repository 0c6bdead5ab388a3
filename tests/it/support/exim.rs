//! Debian's exim as a relay of one test's own, whose rules can be mended.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;

use super::eventually;

/// `tests/tools/server exim` on a free port of loopback, with all that it has forked; killed when
/// dropped.
pub(crate) struct Exim {
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    child: Child,
}

impl Exim {
    /// Starts it with these rules for RCPT, in its own language, and waits until it listens.
    pub(crate) async fn start(acl: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), port_to_keep());
        let child = launch(dir.path(), port, acl);
        let mut exim = Self { port, dir, child };
        exim.listens().await;
        exim
    }

    /// Starts it again with other rules, over the same data and on the same port.
    pub(crate) async fn mended(&mut self, acl: &str) {
        self.kill();
        self.child = launch(self.dir.path(), self.port, acl);
        self.listens().await;
    }

    async fn listens(&mut self) {
        eventually("exim listens", async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("exim ended with {status} (`tests/tools/prepare exim` gets it): {}", self.file("out"));
            }
            TcpStream::connect(("127.0.0.1", self.port)).await.ok()
        })
        .await;
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// How many mails it took for each recipient.
    pub(crate) fn took(&self) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for line in self.file("mainlog").lines().filter(|line| line.contains(" <= ")) {
            let (_, recipient) = line.rsplit_once(" for ").unwrap_or_else(|| panic!("names no recipient: {line}"));
            *all.entry(recipient.to_owned()).or_default() += 1;
        }
        all
    }

    /// The lines in which it says whom it refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.file("mainlog").lines().filter(|line| line.contains(" rejected RCPT ")).map(str::to_owned).collect()
    }

    fn kill(&mut self) {
        // It forks for each connection, and those would go on with the rules of before.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().unwrap();
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port that nobody else is given while exim is down between two sets of rules: the operating
/// system gives ports from 32768 on to whoever asks for any, and to connections.
fn port_to_keep() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(10_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

fn launch(dir: &Path, port: u16, acl: &str) -> Child {
    std::fs::write(dir.join("acl"), format!("{acl}\n")).unwrap();
    let out = std::fs::File::options().append(true).create(true).open(dir.join("out")).unwrap();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools/server");
    let mut command = Command::new(script);
    command.arg("exim").arg(dir).arg(port.to_string()).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).spawn().unwrap()
}
