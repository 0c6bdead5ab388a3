//! A server of one test's own, to be killed, suspended and started again over the same data.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;

use super::process::{self, free_port};

/// `tests/tools/server KIND` on a free port of loopback; killed when dropped.
pub(crate) struct Server {
    kind: &'static str,
    pub(crate) port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts it; it takes connections some time later.
    pub(crate) fn start(kind: &'static str) -> Self {
        Self::start_with(kind, None)
    }

    /// The same with a file of this name and text in its folder.
    pub(crate) fn start_with(kind: &'static str, file: Option<(&str, &str)>) -> Self {
        let mut server = Self { kind, port: free_port(), dir: tempfile::tempdir().unwrap(), child: None };
        if let Some((name, text)) = file {
            std::fs::write(server.dir.path().join(name), text).unwrap();
        }
        server.restart();
        server
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Starts it again over the same data, on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools/server");
        let mut command = Command::new(script);
        command.arg(self.kind).arg(self.dir.path()).arg(self.port.to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            child.wait().unwrap();
        }
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.child.as_ref().expect("runs"), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
