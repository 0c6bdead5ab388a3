//! Orderly end of the process: the first signal asks, the second insists.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells every part of the process that it should stop. Passed down, never global, so that tests
/// can run several.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Cancelled when the process should finish what it does and take nothing new.
    pub drain: CancellationToken,
    /// Cancelled when running work must be given back at once.
    pub abort: CancellationToken,
}

impl Shutdown {
    /// Nothing requested yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Turns SIGTERM, SIGINT and SIGHUP into requests for as long as the process lives: first
    /// drain, then abort.
    ///
    /// SIGHUP, which a closing terminal sends, asks but never insists: the shell and the kernel may
    /// each send one, and systemd's `SendSIGHUP=` sends one right behind SIGTERM. Who was started
    /// by `nohup` goes on ignoring it.
    ///
    /// # Errors
    /// If the operating system refuses to install a signal handler.
    pub fn listen(&self) -> std::io::Result<()> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let ignored = hangup_is_ignored();
        let mut hup = (!ignored).then(|| signal(SignalKind::hangup())).transpose()?;
        let mut requests = Requests { shutdown: self.clone(), asked: false };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => requests.came("SIGTERM", Weight::Insists),
                    _ = int.recv() => requests.came("SIGINT", Weight::Insists),
                    () = next(&mut hup) => requests.came("SIGHUP", Weight::Asks),
                }
            }
        });
        Ok(())
    }
}

/// What a second signal of a sort means.
#[derive(Clone, Copy, PartialEq)]
enum Weight {
    /// No more than the first.
    Asks,
    /// That running work must be given back at once.
    Insists,
}

/// What the signals so far have asked for.
struct Requests {
    shutdown: Shutdown,
    /// Whether one came whose like would insist.
    asked: bool,
}

impl Requests {
    fn came(&mut self, signal: &'static str, weight: Weight) {
        let Shutdown { drain, abort } = &self.shutdown;
        let remedy = self.remedy(weight);
        if weight == Weight::Insists && self.asked {
            tracing::warn!(signal, "second signal: giving running jobs back at once");
            abort.cancel();
        } else if drain.is_cancelled() {
            tracing::info!(signal, "already shutting down; {remedy}");
        } else {
            tracing::info!(signal, "shutting down: running jobs may finish; {remedy}");
            drain.cancel();
        }
        self.asked |= weight == Weight::Insists;
    }

    /// What stops the process at once after a signal of this weight.
    fn remedy(&self, weight: Weight) -> &'static str {
        if self.asked || weight == Weight::Insists {
            "another SIGTERM or Ctrl-C stops at once"
        } else {
            "SIGTERM or Ctrl-C, sent twice, stops at once"
        }
    }
}

/// The next signal of a sort that is listened to; never, if it is not.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether the process was started with SIGHUP ignored, as by `nohup`. A handler would undo that.
fn hangup_is_ignored() -> bool {
    // Where the operating system does not tell, nobody is known to have asked for it.
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// Reads the mask of ignored signals; SIGHUP is the first of them.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(signals: &[(&'static str, Weight)]) -> (bool, bool) {
        let shutdown = Shutdown::new();
        let mut requests = Requests { shutdown: shutdown.clone(), asked: false };
        for (name, weight) in signals {
            requests.came(name, *weight);
        }
        (shutdown.drain.is_cancelled(), shutdown.abort.is_cancelled())
    }

    #[test]
    fn only_a_second_signal_that_insists_aborts() {
        let (term, int) = (("SIGTERM", Weight::Insists), ("SIGINT", Weight::Insists));
        let hup = ("SIGHUP", Weight::Asks);
        for (signals, aborts) in [
            (&[hup][..], false),
            (&[term], false),
            (&[hup, hup, hup], false),
            (&[term, hup], false),
            (&[hup, term], false),
            (&[hup, term, hup], false),
            (&[hup, term, int], true),
            (&[term, hup, term], true),
        ] {
            let names: Vec<_> = signals.iter().map(|(name, _)| *name).collect();
            assert_eq!(after(signals), (true, aborts), "{names:?}");
        }
    }

    #[test]
    fn what_is_said_to_stop_at_once_does() {
        for (signals, says) in [
            (&["SIGTERM"][..], "another SIGTERM or Ctrl-C stops"),
            (&["SIGHUP"], "SIGTERM or Ctrl-C, sent twice, stops"),
            (&["SIGHUP", "SIGHUP"], "SIGTERM or Ctrl-C, sent twice, stops"),
            (&["SIGHUP", "SIGTERM"], "another SIGTERM or Ctrl-C stops"),
            (&["SIGTERM", "SIGHUP"], "another SIGTERM or Ctrl-C stops"),
        ] {
            let shutdown = Shutdown::new();
            let mut requests = Requests { shutdown: shutdown.clone(), asked: false };
            let mut said = "";
            for signal in signals {
                let weight = if *signal == "SIGHUP" { Weight::Asks } else { Weight::Insists };
                said = requests.remedy(weight);
                requests.came(signal, weight);
            }
            assert!(said.starts_with(says), "{signals:?}: {said}");
            for _ in 0..if said.contains("twice") { 2 } else { 1 } {
                assert!(!shutdown.abort.is_cancelled(), "{signals:?}");
                requests.came("SIGINT", Weight::Insists);
            }
            assert!(shutdown.abort.is_cancelled(), "{signals:?}");
        }
    }

    #[test]
    fn a_first_signal_asks_even_where_something_else_has_begun_the_end() {
        let shutdown = Shutdown::new();
        shutdown.drain.cancel();
        let mut requests = Requests { shutdown: shutdown.clone(), asked: false };
        requests.came("SIGTERM", Weight::Insists);
        assert!(!shutdown.abort.is_cancelled());
    }

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = |mask: &str| format!("Name:\tapp\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t1\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(!ignores_hangup("Name:\tapp\n") && !ignores_hangup("SigIgn:\tx"));
    }
}
