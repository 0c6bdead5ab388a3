//! Fetching what is wanted from queues that may hold what nobody here wants.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use lapin::options::BasicGetOptions;

use super::{
    super::{
        declare::refusal,
        link::{ACCESS_REFUSED, RESOURCE_LOCKED, code, look, unavailable},
    },
    Task,
};
use crate::{
    base::id::QueueName,
    broker::{BrokerError, Delivery, Want, aside::Step},
};

/// So many queues are asked for messages without a look first.
const FEW: usize = 4;
/// Round trips that one take spends on messages that are no wake-ups. A take must end in time, and
/// other queues wait for it; the next one goes on where this one stopped.
const DETOURS: usize = 8;

impl Task {
    /// Fetches what is wanted, as far as it is there. If nothing is there, bells stand at all wanted queues afterwards.
    pub(super) async fn take(&mut self, want: &Want) -> Result<Vec<Delivery>, BrokerError> {
        self.unread = false;
        let mut detours = DETOURS;
        let shares: Vec<&(QueueName, usize)> =
            want.shares.iter().filter(|(q, _)| self.queues.contains_key(q)).collect();
        let mut taken = Vec::new();
        // What was found empty, and whether something came from it before.
        let mut empty = self.find_empty(&shares).await?;
        let fills = shares.iter().map(|(q, _)| (q, want.max));
        for (queue, share) in shares.iter().map(|(q, n)| (q, *n)).chain(fills) {
            let n = share.min(want.max.saturating_sub(taken.len()));
            let has_bell = self.queues.get(queue).is_some_and(|q| q.bell.is_some());
            let before = taken.len();
            if n > 0
                && !has_bell
                && !empty.contains_key(queue)
                && self.fetch(queue, n, &mut detours, &mut taken).await?
            {
                empty.insert(queue.clone(), taken.len() > before);
            }
        }
        // A queue that gave something is likely to have more soon: it gets a bell only if there is nothing else to do.
        let waits = taken.is_empty();
        let quiet: Vec<QueueName> = empty.into_iter().filter(|(_, gave)| waits || !gave).map(|(q, _)| q).collect();
        self.hang_bells(quiet).await?;
        Ok(taken)
    }

    /// Those of many queues that a look at all of them together finds empty: asking one after the other would take a
    /// round trip for each.
    async fn find_empty(&mut self, shares: &[&(QueueName, usize)]) -> Result<BTreeMap<QueueName, bool>, BrokerError> {
        let silent = |q: &&QueueName| self.queues.get(*q).is_some_and(|known| known.bell.is_none() && known.left == 0);
        let silent: Vec<&QueueName> = shares.iter().map(|(q, _)| q).filter(silent).collect();
        if silent.len() <= FEW {
            return Ok(BTreeMap::new());
        }
        let names: Vec<String> = silent.iter().map(|q| self.names.queue(q)).collect();
        let looks = join_all(names.iter().map(|name| look(&self.channel, name))).await;
        let mut empty = BTreeMap::new();
        for (queue, seen) in silent.into_iter().zip(looks) {
            if seen.map_err(|e| unavailable(&e))?.message_count() == 0 {
                empty.insert(queue.clone(), false);
            }
        }
        Ok(empty)
    }

    /// What a failure to take from a queue means: a refusal costs the channel, and a new consumer goes on without the
    /// queue.
    pub(super) fn failed(&self, queue: &QueueName, e: &lapin::Error) -> BrokerError {
        // Other codes may come for another reason than the question: 406 for a delivery that was held for too long.
        let asked = code(e).is_some_and(|c| [ACCESS_REFUSED, RESOURCE_LOCKED].contains(&c));
        match refusal(&self.names.queue(queue), e).filter(|_| asked) {
            Some(why) => BrokerError::Refused(vec![self.aside.refuse(queue, Step::Take, why)]),
            None => unavailable(e),
        }
    }

    /// Fetches up to `n`, no more at once than there may be; returns whether the queue is empty now.
    /// Messages that are no wake-ups stay held and take nobody's place, but cost one of the `detours`.
    async fn fetch(
        &mut self,
        queue: &QueueName,
        n: usize,
        detours: &mut usize,
        taken: &mut Vec<Delivery>,
    ) -> Result<bool, BrokerError> {
        let name = self.names.queue(queue);
        let mut room = n;
        while room > 0 {
            let Some(known) = self.queues.get_mut(queue) else { return Ok(true) };
            let asked = room.min(known.left.max(1));
            let gets = (0..asked).map(|_| self.channel.basic_get(name.as_str().into(), BasicGetOptions::default()));
            let (mut empty, mut foreign, mut failed) = (false, false, None);
            for got in join_all(gets).await {
                match got {
                    Ok(Some(message)) => {
                        known.left = message.message_count as usize;
                        match self.held.note(queue, &message.delivery) {
                            Some(delivery) => {
                                taken.push(delivery);
                                room -= 1;
                            }
                            None => foreign = true,
                        }
                    }
                    Ok(None) => empty = true,
                    Err(e) => failed = failed.or(Some(e)),
                }
            }
            if empty || known.left == 0 {
                known.left = 0;
            }
            let left = known.left;
            if let Some(e) = failed {
                return Err(self.failed(queue, &e));
            }
            if left == 0 {
                return Ok(true);
            }
            if foreign && *detours == 0 {
                self.unread = true;
                break;
            }
            *detours -= usize::from(foreign);
        }
        Ok(false)
    }
}
