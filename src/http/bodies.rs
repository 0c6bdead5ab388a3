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
    task::Context,
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::{
    base::error::Kind,
    http::problem::{Problem, ProblemType},
};

/// Least rate of a body, in bytes a second, in each stretch of one time-out.
const LEAST_RATE: u64 = 8 * 1024;
/// So many stretches may be slower, as long as something comes in each.
const SLOW_MAX: u32 = 2;
/// A body up to this many bytes may also use what is kept for such.
const SMALL: usize = 64 * 1024;
/// The part of the bound that is kept, on top of it, for small bodies, so that large ones leave room to log in.
const KEPT_PART: usize = 8;

/// How much bodies under way may hold together, and how long one may stand still.
#[derive(Debug)]
pub struct Bodies {
    free: AtomicUsize,
    kept: usize,
    timeout: Duration,
}

impl Bodies {
    /// Bodies that hold `max` bytes together and make progress within `timeout`.
    #[must_use]
    pub fn new(max: usize, timeout: Duration) -> Arc<Self> {
        let kept = max / KEPT_PART;
        Arc::new(Self { free: AtomicUsize::new(max.saturating_add(kept)), kept, timeout })
    }

    /// Bytes that large bodies may still take.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed) - self.kept
    }

    /// Takes `bytes` for a body that will hold `whole` with them.
    fn take(&self, bytes: usize, whole: usize) -> Result<(), Problem> {
        let least = if whole > SMALL { self.kept } else { 0 };
        let left = |free: usize| free.checked_sub(bytes).filter(|left| *left >= least);
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        let full = "the server is receiving as many bytes of requests as it may at once; try again (http.max_bodies)";
        taken.map(drop).map_err(|_free| Problem::new(Kind::Unavailable, full))
    }
}

/// A body that is waited for. Gives back what it holds when it is dropped.
pub(crate) struct UnderWay {
    bodies: Arc<Bodies>,
    held: usize,
    /// What it held when the present stretch of time began.
    held_before: usize,
    /// Stretches that were too slow.
    slow: u32,
    /// Ends the present stretch.
    alarm: Pin<Box<Sleep>>,
}

impl UnderWay {
    /// Begins to wait for the rest of a body of which `held` bytes are there.
    ///
    /// # Errors
    /// 503, if all bodies together hold too much.
    pub(crate) fn start(bodies: &Arc<Bodies>, held: usize) -> Result<Self, Problem> {
        bodies.take(held, held)?;
        let alarm = Box::pin(tokio::time::sleep(bodies.timeout));
        Ok(Self { bodies: Arc::clone(bodies), held, held_before: held, slow: 0, alarm })
    }

    /// Counts bytes that came.
    ///
    /// # Errors
    /// 503, if all bodies together hold too much.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bodies.take(bytes, self.held + bytes)?;
        self.held += bytes;
        Ok(())
    }

    /// Wakes the reader when the body is to be given up.
    ///
    /// # Errors
    /// 408, if it is too slow.
    pub(crate) fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Result<(), Problem> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let came = (self.held - self.held_before) as u64;
            let wanted = LEAST_RATE.saturating_mul(self.bodies.timeout.as_millis() as u64) / 1000;
            self.slow += u32::from(came < wanted);
            if came == 0 || self.slow > SLOW_MAX {
                return Err(Problem::new(
                    ProblemType::RequestTimeout,
                    format!(
                        "the body did not arrive: after {} bytes it stood still or came slower than {LEAST_RATE} \
                         bytes a second (http.body_timeout)",
                        self.held
                    ),
                ));
            }
            self.held_before = self.held;
            self.alarm.as_mut().reset(Instant::now() + self.bodies.timeout);
        }
        Ok(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.bodies.free.fetch_add(self.held, Ordering::Relaxed);
    }
}
