//! Which queues the next jobs are taken from: by weight, or strictly in order.
//!
//! Weighted sharing follows what was really taken (deficit round robin): each start costs its queue the sum of all
//! weights and earns every queue its own weight, so that over time starts are in proportion to the weights. A queue that was
//! found empty neither earns nor counts until something comes from it.

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
    empty: bool,
}

impl Slots {
    pub(super) fn new(queues: &[(QueueName, u32)], strict: bool, at_once: usize) -> Self {
        let memory = i64::try_from(at_once).unwrap_or(i64::MAX / 1_000_000).max(MEMORY);
        let share = |(name, weight): &(QueueName, u32)| Share {
            name: name.clone(),
            weight: i64::from(*weight),
            credit: 0,
            empty: false,
        };
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

    /// Notes what came of a want: the queues of the jobs that were taken.
    pub(super) fn took<'a>(&mut self, want: &Want, queues: impl Iterator<Item = &'a QueueName> + Clone) {
        for s in &mut self.queues {
            let came = queues.clone().any(|q| *q == s.name);
            let asked = want.shares.iter().any(|(q, n)| *q == s.name && *n > 0);
            s.empty = !came && (asked || s.empty);
        }
        for queue in queues {
            self.start(queue);
        }
    }

    fn start(&mut self, queue: &QueueName) {
        let total: i64 = self.queues.iter().filter(|s| !s.empty).map(|s| s.weight).sum();
        for s in self.queues.iter_mut().filter(|s| !s.empty) {
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

    /// Plays `n` starts with `free` slots at a time over queues of which the first two never run dry and the others are empty.
    fn play(slots: &mut Slots, n: usize, free: usize) -> Vec<usize> {
        let full: Vec<_> = slots.queues.iter().take(2).map(|s| s.name.clone()).collect();
        let mut counts = vec![0; full.len()];
        while counts.iter().sum::<usize>() < n {
            let want = slots.want(free, &HashSet::new()).unwrap();
            let fills = want.shares.iter().map(|(q, _)| (q.clone(), want.max));
            let mut taken = Vec::new();
            for (queue, share) in want.shares.iter().cloned().chain(fills) {
                if let Some(at) = full.iter().position(|q| *q == queue) {
                    let got = share.min(want.max - taken.len());
                    counts[at] += got;
                    taken.extend(std::iter::repeat_n(queue, got));
                }
            }
            slots.took(&want, taken.iter());
        }
        counts
    }

    #[test]
    fn starts_are_in_proportion_to_the_weights() {
        let empty: Vec<_> = (0..6).map(|n| (q(&format!("empty{n}")), 1)).collect();
        for free in [1, 2, 5, 64, 260] {
            for empty in [&empty[..0], &empty[..]] {
                let queues = [&[(q("a"), 1), (q("b"), 3)], empty].concat();
                let counts = play(&mut Slots::new(&queues, false, 260), 4000, free);
                assert!((960..=1070).contains(&counts[0]), "free {free}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_queue_that_was_empty_gets_its_share_as_soon_as_it_is_not() {
        let mut s = Slots::new(&[(q("a"), 1), (q("b"), 1), (q("c"), 1)], false, 4);
        play(&mut s, 1000, 1);
        s.queues.swap(0, 2);
        let counts = play(&mut s, 40, 1);
        assert!((15..=25).contains(&counts[0]), "{counts:?}");
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
