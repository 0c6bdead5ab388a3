//! Which queues the next jobs are taken from: by weight, or strictly in order.
//!
//! Weighted sharing follows what was really taken (deficit round robin): each start costs its queue the sum of all
//! weights and earns every queue its own weight, so that over time starts are in proportion to the weights, and a
//! queue that was empty has not saved up more than a few turns.

use std::collections::HashSet;

use crate::{base::id::QueueName, broker::Want};

/// How many turns a queue can save up or owe, at least; as many as the worker can take from one queue in one go if these are more.
const MEMORY: i64 = 8;

/// The sharing of slots between a worker's queues.
pub(super) struct Slots {
    queues: Vec<Share>,
    strict: bool,
    memory: i64,
}

struct Share {
    name: QueueName,
    weight: i64,
    credit: i64,
}

impl Slots {
    pub(super) fn new(queues: &[(QueueName, u32)], strict: bool, at_once: usize) -> Self {
        let memory = i64::try_from(at_once).unwrap_or(i64::MAX / 1_000_000).max(MEMORY);
        let share =
            |(name, weight): &(QueueName, u32)| Share { name: name.clone(), weight: i64::from(*weight), credit: 0 };
        Self { queues: queues.iter().map(share).collect(), strict, memory }
    }

    /// What to ask the broker for with `free` slots; none if there is nothing to ask for.
    pub(super) fn want(&self, free: usize, paused: &HashSet<QueueName>) -> Option<Want> {
        let open: Vec<&Share> = self.queues.iter().filter(|s| !paused.contains(&s.name)).collect();
        if open.is_empty() || free == 0 {
            return None;
        }
        if self.strict || open.len() == 1 {
            return Some(Want { max: free, shares: open.iter().map(|s| (s.name.clone(), free)).collect() });
        }
        let total: i64 = open.iter().map(|s| s.weight).sum();
        let mut plan: Vec<(&Share, i64, usize)> = open.into_iter().map(|s| (s, s.credit, 0)).collect();
        for _ in 0..free {
            for (s, credit, _) in &mut plan {
                *credit += s.weight;
            }
            if let Some((_, credit, n)) = plan.iter_mut().max_by_key(|(_, credit, _)| *credit) {
                *credit -= total;
                *n += 1;
            }
        }
        // Whoever is owed most comes first when the broker fills what others leave.
        plan.sort_by_key(|(s, _, n)| (std::cmp::Reverse(*n), std::cmp::Reverse(s.credit)));
        Some(Want { max: free, shares: plan.into_iter().map(|(s, _, n)| (s.name.clone(), n)).collect() })
    }

    /// Notes that a job of `queue` was taken.
    pub(super) fn took(&mut self, queue: &QueueName) {
        let total: i64 = self.queues.iter().map(|s| s.weight).sum();
        for s in &mut self.queues {
            s.credit += s.weight;
            if s.name == *queue {
                s.credit -= total;
            }
            let most = self.memory.saturating_mul(total);
            s.credit = s.credit.clamp(-most, most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(s: &str) -> QueueName {
        QueueName::new(s).unwrap()
    }

    /// Plays `n` starts with `free` slots at a time over queues that never run dry.
    fn play(slots: &mut Slots, n: usize, free: usize) -> Vec<usize> {
        let mut counts = vec![0; slots.queues.len()];
        let names: Vec<_> = slots.queues.iter().map(|s| s.name.clone()).collect();
        let mut done = 0;
        while done < n {
            for (queue, share) in slots.want(free, &HashSet::new()).unwrap().shares {
                for _ in 0..share {
                    slots.took(&queue);
                    counts[names.iter().position(|x| *x == queue).unwrap()] += 1;
                    done += 1;
                }
            }
        }
        counts
    }

    #[test]
    fn starts_are_in_proportion_to_the_weights() {
        for free in [1, 2, 5, 64, 260] {
            let mut s = Slots::new(&[(q("a"), 1), (q("b"), 3)], false, 260);
            let counts = play(&mut s, 4000, free);
            assert!((980..=1070).contains(&counts[0]), "free {free}: {counts:?}");
        }
    }

    #[test]
    fn strict_order_offers_everything_to_the_first() {
        let s = Slots::new(&[(q("a"), 1), (q("b"), 3)], true, 64);
        let w = s.want(4, &HashSet::new()).unwrap();
        assert_eq!(w.shares, [(q("a"), 4), (q("b"), 4)]);
    }

    #[test]
    fn paused_queues_are_not_asked() {
        let s = Slots::new(&[(q("a"), 1), (q("b"), 3)], false, 64);
        let w = s.want(2, &HashSet::from([q("b")])).unwrap();
        assert_eq!(w.shares, [(q("a"), 2)]);
        assert!(s.want(2, &HashSet::from([q("a"), q("b")])).is_none());
        assert!(s.want(0, &HashSet::new()).is_none());
    }
}
