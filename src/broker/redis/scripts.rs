//! Lua scripts. Each touches the lists of one queue; all keys are in KEYS. A server that lost them gets them again.

use std::collections::BTreeMap;

use deadpool_redis::redis::{Script, ScriptInvocation};

use crate::{
    base::id::{JobId, Priority, QueueName},
    broker::wire,
};

/// Most wake-ups in one call: Lua's stack holds 8000 values.
pub(super) const BATCH: usize = 1000;

/// KEYS: the lists to push to. ARGV: RPUSH or LPUSH; the bell's channel; how many go into each list; all of them, in the
/// order of the lists. Returns nothing if the bell need not ring, an empty text if it rang, or what the server said when
/// it refused. A list that is of another type fails the script after the others were pushed to, and
/// is named.
const PUSH: &str = r"
local at, rings, refused = #KEYS + 3, false, nil
for i, list in ipairs(KEYS) do
  local n = tonumber(ARGV[i + 2])
  local got = redis.pcall(ARGV[1], list, unpack(ARGV, at, at + n - 1))
  if type(got) == 'table' and got.err then
    if not string.find(got.err, 'WRONGTYPE', 1, true) then return got end
    got.err = got.err .. ', `' .. list .. '`'
    refused = got
  elseif got == n then
    rings = true
  end
  at = at + n
end
local said = false
if rings then
  said = redis.pcall('PUBLISH', ARGV[2], '')
  said = type(said) == 'table' and said.err or ''
end
return refused or said
";

/// KEYS: the lists of a queue, highest priority first. ARGV: how many at most; with 0 all lists are looked at.
/// Returns: number of a list in KEYS, what came from it, and so on; of a list of another type the negative number and what
/// the server said. Whatever else the server says fails the script, unless something was popped before.
const POP: &str = r"
local want, out = tonumber(ARGV[1]), {}
for i, list in ipairs(KEYS) do
  local got = redis.pcall('LPOP', list, want)
  if got and got.err then
    if not string.find(got.err, 'WRONGTYPE', 1, true) then
      if #out > 0 then return out end
      return got
    end
    out[#out + 1] = -i
    out[#out + 1] = { got.err }
  elseif got and #got > 0 then
    out[#out + 1] = i
    out[#out + 1] = got
    want = want - #got
    if want == 0 then break end
  end
end
return out
";

/// KEYS: the lists of a queue. Returns how many wake-ups were in them.
const PURGE: &str = r"
local n = 0
for _, list in ipairs(KEYS) do n = n + redis.call('LLEN', list) end
redis.call('UNLINK', unpack(KEYS))
return n
";

/// Which end of a list.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// Last of its priority.
    Tail,
    /// First of its priority; of several, the last one pushed.
    Head,
}

/// The keys of one queue, highest priority first.
pub(super) struct Lists(Vec<String>);

impl Lists {
    pub(super) fn new(prefix: &str, queue: &QueueName) -> Self {
        let lists = (Priority::MIN.get()..=Priority::MAX.get()).rev();
        Self(lists.map(|p| format!("app:{prefix}{{{queue}}}:{p}")).collect())
    }

    /// All of them, for a sentence.
    pub(super) fn pattern(&self) -> String {
        let first = self.0.first().map_or("", String::as_str);
        format!("{}:*", first.rsplit_once(':').map_or(first, |(queue, _)| queue))
    }

    pub(super) fn keys(&self) -> &[String] {
        &self.0
    }

    pub(super) fn of(&self, p: Priority) -> Option<&String> {
        self.0.get(usize::from(Priority::MAX.get() - p.get()))
    }

    /// The priority of the list with this number in a script, which counts from 1.
    pub(super) fn priority(number: i64) -> Option<Priority> {
        Priority::new(i64::from(Priority::MAX.get()) + 1 - number).ok()
    }
}

/// All scripts, with their hashes.
pub(super) struct Scripts {
    push: Script,
    pop: Script,
    purge: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self { push: Script::new(PUSH), pop: Script::new(POP), purge: Script::new(PURGE) }
    }

    /// At most [`BATCH`] wake-ups, in the order of pushing.
    pub(super) fn push(
        &self,
        lists: &Lists,
        bell: &str,
        end: End,
        wake_ups: impl Iterator<Item = (Priority, JobId)>,
    ) -> ScriptInvocation<'_> {
        let mut by_priority = BTreeMap::<Priority, Vec<JobId>>::new();
        for (priority, job) in wake_ups {
            by_priority.entry(priority).or_default().push(job);
        }
        let mut push = self.push.prepare_invoke();
        push.arg(match end {
            End::Tail => "RPUSH",
            End::Head => "LPUSH",
        });
        push.arg(bell);
        for (priority, jobs) in &by_priority {
            push.key(lists.of(*priority)).arg(jobs.len());
        }
        for job in by_priority.values().flatten() {
            push.arg(wire::encode(*job).as_slice());
        }
        push
    }

    pub(super) fn pop(&self, lists: &Lists, max: usize) -> ScriptInvocation<'_> {
        let mut pop = self.pop.prepare_invoke();
        pop.key(lists.keys()).arg(max);
        pop
    }

    pub(super) fn purge(&self, lists: &Lists) -> ScriptInvocation<'_> {
        let mut purge = self.purge.prepare_invoke();
        purge.key(lists.keys());
        purge
    }
}
