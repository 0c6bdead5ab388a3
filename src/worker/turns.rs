//! Who gets the next free slot: between the queues of the jobs that wait for one it goes by weight, or strictly in order, and within a queue
//! by priority, and of equals to the one that came first.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::base::id::{Priority, QueueName};

/// A worker's slots, and who waits for one.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    came: u64,
    strict: bool,
    lines: Vec<Line>,
}

/// Who waits of one queue.
struct Line {
    queue: QueueName,
    weight: i64,
    credit: i64,
    /// By priority, then by who came first.
    waiting: BTreeMap<(Reverse<Priority>, u64), oneshot::Sender<Turn>>,
}

impl State {
    /// Whose turn it is: the first queue's if they are served strictly in order, else each by its weight.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let mut open: Vec<&mut Line> = self.lines.iter_mut().filter(|l| !l.waiting.is_empty()).collect();
        if self.strict || open.len() < 2 {
            return open.into_iter().next()?.waiting.pop_first().map(|(_, turn)| turn);
        }
        let total: i64 = open.iter().map(|l| l.weight).sum();
        for line in &mut open {
            line.credit += line.weight;
        }
        let line = open.into_iter().max_by_key(|l| l.credit)?;
        line.credit -= total;
        line.waiting.pop_first().map(|(_, turn)| turn)
    }
}

/// A slot, until it is dropped. One of no slots is what is left of a turn that nobody took.
pub(super) struct Turn(Option<Turns>);

impl Turns {
    /// `slots` of them, for these queues with their weights.
    pub(super) fn new(slots: usize, queues: &[(QueueName, u32)], strict: bool) -> Self {
        let line = |(queue, weight): &(QueueName, u32)| Line {
            queue: queue.clone(),
            weight: i64::from(*weight),
            credit: 0,
            waiting: BTreeMap::new(),
        };
        let lines = queues.iter().map(line).collect();
        Self(Arc::new(Mutex::new(State { free: slots, came: 0, strict, lines })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, or the place where one will come. Of a queue that is not the worker's no place ever gets one.
    pub(super) fn ask(&self, queue: &QueueName, priority: Priority) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            return Ok(Turn(Some(self.clone())));
        }
        let (turn, place) = oneshot::channel();
        state.came += 1;
        let rank = (Reverse(priority), state.came);
        if let Some(line) = state.lines.iter_mut().find(|l| l.queue == *queue) {
            line.waiting.insert(rank, turn);
        }
        Err(place)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        loop {
            let mut state = turns.lock();
            let Some(next) = state.next() else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.send(Self(Some(turns.clone()))) {
                Ok(()) => return,
                // Whoever waited there has gone.
                Err(mut back) => back.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    /// One slot, taken, and two queues.
    fn taken(strict: bool) -> (Turns, Turn) {
        let turns = Turns::new(1, &[(q("a"), 1), (q("b"), 3)], strict);
        let turn = turns.ask(&q("a"), Priority::MIN).ok().unwrap();
        (turns, turn)
    }

    /// In which order these get the slot, when they all wait for it.
    fn order(strict: bool, jobs: &[(&str, Priority)]) -> Vec<usize> {
        let (turns, first) = taken(strict);
        let mut places: Vec<_> = jobs.iter().map(|(queue, p)| turns.ask(&q(queue), *p).err().unwrap()).collect();
        let (mut order, mut turn) = (Vec::new(), Some(first));
        for _ in jobs {
            drop(turn.take());
            for (n, place) in places.iter_mut().enumerate().filter(|(_, place)| !place.is_terminated()) {
                if let Ok(got) = place.try_recv() {
                    assert!(turn.is_none(), "there is one slot");
                    order.push(n);
                    turn = Some(got);
                }
            }
        }
        order
    }

    #[test]
    fn within_a_queue_by_priority_and_then_by_arrival() {
        let (low, high) = (Priority::MIN, Priority::MAX);
        assert_eq!(order(false, &[("a", low), ("a", low), ("a", high), ("a", Priority::MEDIUM)]), [2, 3, 0, 1]);
    }

    #[test]
    fn between_queues_by_weight_or_in_order() {
        let jobs: Vec<_> = (0..16).map(|n| (["a", "b"][n / 8], Priority::MEDIUM)).collect();
        let first: Vec<_> = order(false, &jobs).into_iter().take(8).collect();
        assert_eq!(first.iter().filter(|n| **n >= 8).count(), 6, "{first:?}");
        let high = [("b", Priority::MAX), ("a", Priority::MIN), ("b", Priority::MIN)];
        assert_eq!(order(true, &high), [1, 0, 2]);
    }

    #[tokio::test]
    async fn no_slot_is_lost_with_who_waited_for_it() {
        let (turns, turn) = taken(false);
        let mut turn = Some(turn);
        for _ in 0..3 {
            // One goes before its slot comes, one after.
            drop(turns.ask(&q("a"), Priority::MAX).err().unwrap());
            let place = turns.ask(&q("b"), Priority::MAX).err().unwrap();
            let last = turns.ask(&q("a"), Priority::MIN).err().unwrap();
            drop(turn.take());
            drop(place);
            turn = Some(last.await.unwrap());
        }
        drop(turn.take());
        assert!(turns.ask(&q("a"), Priority::MIN).is_ok());
    }
}
