//! Bounds what request bodies under way cost: together in bytes, and each in time.
//!
//! A body that is there with its headers, as nearly all are, is never counted or timed. Only a body
//! that has to be waited for is: its bytes count against one bound for the whole process, it has to
//! make progress, and it has to keep up a least rate.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::{
    base::error::Kind,
    http::problem::{Problem, ProblemType},
};

/// A body may take this many of its time-outs before its rate counts.
const GRACE: u32 = 3;
/// Least rate of a body after that, in bytes a second.
const LEAST_RATE: u64 = 8 * 1024;

/// How much bodies under way may hold together, and how long one may stand still.
#[derive(Debug)]
pub struct Bodies {
    free: AtomicUsize,
    timeout: Duration,
}

impl Bodies {
    /// Bodies that hold `max` bytes together and make progress within `timeout`.
    #[must_use]
    pub fn new(max: usize, timeout: Duration) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(max), timeout })
    }

    /// Bytes that may still be taken.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), Problem> {
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes));
        let full = "the server is receiving as many bytes of requests as it may at once; try again (http.max_bodies)";
        taken.map(drop).map_err(|_free| Problem::new(Kind::Unavailable, full))
    }
}

/// A body that is waited for. Gives back what it holds when it is dropped.
pub(crate) struct UnderWay {
    bodies: Arc<Bodies>,
    held: usize,
    started: Instant,
    alarm: Pin<Box<Sleep>>,
    moved: bool,
}

impl UnderWay {
    /// Begins to wait for the rest of a body of which `held` bytes are there.
    ///
    /// # Errors
    /// 503, if all bodies together hold too much.
    pub(crate) fn start(bodies: &Arc<Bodies>, held: usize) -> Result<Self, Problem> {
        bodies.take(held)?;
        let started = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(started + bodies.timeout));
        Ok(Self { bodies: Arc::clone(bodies), held, started, alarm, moved: false })
    }

    /// Counts bytes that came.
    ///
    /// # Errors
    /// 503, if all bodies together hold too much.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bodies.take(bytes)?;
        self.held += bytes;
        self.moved = true;
        Ok(())
    }

    /// Wakes the reader when the body is to be given up.
    ///
    /// # Errors
    /// 408, if it is too slow.
    pub(crate) fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Result<(), Problem> {
        if std::mem::take(&mut self.moved) {
            let worth = Duration::from_millis((self.held as u64).saturating_mul(1000) / LEAST_RATE);
            let latest = self.started + self.bodies.timeout * GRACE + worth;
            self.alarm.as_mut().reset(latest.min(Instant::now() + self.bodies.timeout));
        }
        match self.alarm.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(Problem::new(
                ProblemType::RequestTimeout,
                format!(
                    "the body did not arrive: after {} bytes it stood still or was slower than {LEAST_RATE} bytes a second",
                    self.held
                ),
            )),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.bodies.free.fetch_add(self.held, Ordering::Relaxed);
    }
}
