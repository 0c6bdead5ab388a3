//! Who gets the next free slot: of the jobs that wait for one, the highest in rank, and of equals the one that came first.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// What a job waits by; more is sooner.
pub(super) type Rank = (Reverse<usize>, u8);

/// A worker's slots, and who waits for one.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    came: u64,
    waiting: BinaryHeap<Waiting>,
}

struct Waiting {
    rank: (Rank, Reverse<u64>),
    turn: oneshot::Sender<Turn>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// A slot, until it is dropped. One without slots is only what is left of a turn that nobody took.
pub(super) struct Turn(Option<Turns>);

impl Turns {
    pub(super) fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: slots, came: 0, waiting: BinaryHeap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, or the place where one will come.
    pub(super) fn ask(&self, rank: Rank) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            return Ok(Turn(Some(self.clone())));
        }
        let (turn, place) = oneshot::channel();
        state.came += 1;
        let rank = (rank, Reverse(state.came));
        state.waiting.push(Waiting { rank, turn });
        Err(place)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        loop {
            let mut state = turns.lock();
            let Some(next) = state.waiting.pop() else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.turn.send(Self(Some(turns.clone()))) {
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

    fn rank(priority: u8) -> Rank {
        (Reverse(0), priority)
    }

    #[tokio::test]
    async fn the_highest_in_rank_comes_first_and_of_equals_the_first() {
        let turns = Turns::new(1);
        let first = turns.ask(rank(1)).ok().unwrap();
        let low: Vec<_> = (0..2).map(|_| turns.ask(rank(1)).err().unwrap()).collect();
        let high = turns.ask(rank(9)).err().unwrap();
        let later = turns.ask((Reverse(1), 10)).err().unwrap();
        drop(first);
        let turn = high.await.unwrap();
        let mut turn = Some(turn);
        for mut place in low.into_iter().chain([later]) {
            assert!(place.try_recv().is_err(), "there is one slot");
            drop(turn.take());
            turn = Some(place.await.unwrap());
        }
    }

    #[tokio::test]
    async fn no_slot_is_lost_with_who_waited_for_it() {
        let turns = Turns::new(1);
        for _ in 0..3 {
            let turn = turns.ask(rank(5)).ok().unwrap();
            // One goes before its slot comes, one after.
            drop(turns.ask(rank(5)).err().unwrap());
            let place = turns.ask(rank(5)).err().unwrap();
            let last = turns.ask(rank(1)).err().unwrap();
            drop(turn);
            drop(place);
            drop(last.await.unwrap());
        }
    }
}
