//! Clients that never stop submitting, and the proof that what they were promised came true.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::arena::{Arena, Victim};
use crate::support::{
    eventually_within,
    fleet::Fleet,
    process::{Process, client},
    servers,
};

/// Between two submissions.
const PAUSE: Duration = Duration::from_millis(25);
/// After this long without an answer a client turns to the other instance.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// Whatever is down, an answer must have come before this.
const BOUND: Duration = Duration::from_secs(15);
/// Most that anything here waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one client was promised.
struct Accepted {
    id: String,
    /// Runs that its script needs.
    runs: usize,
}

struct Shared {
    urls: Mutex<Vec<String>>,
    accepted: Mutex<Vec<Accepted>>,
    longest_gap: Mutex<Duration>,
    stop: AtomicBool,
    ran: String,
    /// Marks the jobs of this load that have a key.
    tag: String,
}

/// Clients at work.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a cell of the matrix is told by.
pub(super) struct Figures {
    pub(super) accepted: usize,
    /// Runs beyond those that scripts asked for.
    pub(super) extra: usize,
    pub(super) longest_gap: Duration,
    /// From healing until a job ran again.
    pub(super) runs_after: Duration,
    /// From healing until nothing was left to do; clients went on for a while.
    pub(super) done_after: Duration,
}

impl Load {
    /// One client that goes on with the next instance when one fails it; and, for a victim that `serve` itself depends on, one for
    /// each instance that only looks whether it is answered in time.
    pub(super) fn start(arena: &Arena, victim: Victim) -> Self {
        let shared = Arc::new(Shared {
            urls: Mutex::default(),
            accepted: Mutex::default(),
            longest_gap: Mutex::default(),
            stop: AtomicBool::new(false),
            ran: arena.fleet.file("ran").display().to_string(),
            tag: servers::unique(),
        });
        let mut load = Self { shared: Arc::clone(&shared), tasks: Vec::new() };
        load.at(arena);
        load.tasks.push(tokio::spawn(submit_always(Arc::clone(&shared))));
        if matches!(victim, Victim::Broker | Victim::Mongod) {
            for serve in &arena.serves {
                load.tasks.push(tokio::spawn(ask_always(Arc::clone(&shared), serve.url.clone(), victim)));
            }
        }
        load
    }

    /// Tells where the instances are now.
    pub(super) fn at(&self, arena: &Arena) {
        *self.shared.urls.lock().unwrap() = arena.serves.iter().map(|s| s.url.clone()).collect();
    }

    /// Waits until so many more are accepted.
    pub(super) async fn more(&self, n: usize) {
        let enough = self.accepted() + n;
        eventually_within(PATIENCE, "jobs are accepted", async || (self.accepted() >= enough).then_some(())).await;
    }

    pub(super) fn accepted(&self) -> usize {
        self.shared.accepted.lock().unwrap().len()
    }

    /// Waits until a job runs that began after now; answers how long that took.
    pub(super) async fn runs(&self, arena: &Arena) -> Duration {
        let (from, before) = (Instant::now(), arena.fleet.appended("ran").len());
        eventually_within(PATIENCE, "a job runs", async || (arena.fleet.appended("ran").len() > before).then_some(()))
            .await;
        from.elapsed()
    }

    /// Stops the clients, waits until nothing is left to do, and checks every job that was promised.
    pub(super) async fn settle(self, arena: &Arena, healed: Instant, runs_after: Duration) -> Figures {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let serve = &arena.serves[1];
        eventually_within(PATIENCE, "nothing is left to do", async || {
            let queues = serve.get("/api/v1/queues").await?;
            let idle = |q: &Value| ["queued", "scheduled", "running"].iter().all(|s| q[s] == 0);
            queues["data"].as_array()?.iter().all(idle).then_some(())
        })
        .await;
        let done_after = healed.elapsed();
        let accepted = std::mem::take(&mut *self.shared.accepted.lock().unwrap());
        let extra = check(serve, &arena.fleet, &accepted).await;
        no_key_made_two(arena, &self.shared).await;
        let longest_gap = *self.shared.longest_gap.lock().unwrap();
        Figures { accepted: accepted.len(), extra, longest_gap, runs_after, done_after }
    }
}

/// Job number `n`: of every sort that goes its own way through the system.
fn job(shared: &Shared, n: usize) -> (Value, usize) {
    let append = json!({"append": shared.ran});
    let sleep = |ms: u64| json!([[append, {"sleep": ms}]]);
    let (runs, needed, more) = match n % 8 {
        0 => (sleep(1000), 1, json!({})),
        1 => (sleep(20), 1, json!({"delay": 0.3})),
        2 => (json!([[append, {"error": "once"}], [append, {"sleep": 20}]]), 2, json!({})),
        3 => (sleep(20), 1, json!({"priority": "high"})),
        _ => (sleep(50), 1, json!({})),
    };
    let mut body = json!({"kind": "test.script", "payload": {"runs": runs}});
    for (k, v) in more.as_object().unwrap() {
        body[k] = v.clone();
    }
    (body, needed)
}

async fn submit_always(shared: Arc<Shared>) {
    let http = client();
    let mut last = Instant::now();
    for n in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let (mut body, runs) = job(&shared, n);
        body["tags"] = json!([shared.tag.clone()]);
        let key = format!("{}-{n}", shared.tag);
        let began = Instant::now();
        for attempt in n.. {
            assert!(began.elapsed() < PATIENCE, "a job is refused for {PATIENCE:?}");
            let url = { shared.urls.lock().unwrap()[attempt % 2].clone() };
            let post = http.post(format!("{url}/api/v1/jobs")).header("idempotency-key", &key);
            let answer = match post.json(&body).timeout(IMPATIENCE).send().await {
                Ok(answer) => answer,
                Err(_) => continue,
            };
            let status = answer.status();
            assert!(status == 202 || status.is_server_error(), "{status}: {:?}", answer.text().await);
            if status == 202
                && let Ok(job) = answer.json::<Value>().await
            {
                let id = job["id"].as_str().unwrap().to_owned();
                shared.accepted.lock().unwrap().push(Accepted { id, runs });
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let gap = std::mem::replace(&mut last, Instant::now()).elapsed();
        shared.note_gap(gap);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Every request is answered in bounded time: accepted, or refused with word when to come back. Without a broker
/// everything is accepted.
async fn ask_always(shared: Arc<Shared>, url: String, victim: Victim) {
    let http = client();
    while !shared.stop.load(Ordering::Relaxed) {
        let (body, runs) = job(&shared, 4);
        let began = Instant::now();
        let answer = http.post(format!("{url}/api/v1/jobs")).json(&body).timeout(BOUND).send().await;
        let answer = answer.unwrap_or_else(|e| panic!("no answer after {:?}: {e}", began.elapsed()));
        if answer.status() == 202 {
            let job: Value = answer.json().await.unwrap();
            let id = job["id"].as_str().unwrap().to_owned();
            shared.accepted.lock().unwrap().push(Accepted { id, runs });
        } else {
            assert_eq!(victim, Victim::Mongod, "refused without a broker: {answer:?}");
            assert_eq!(answer.status(), 503, "{answer:?}");
            assert!(answer.headers().contains_key("retry-after"));
        }
        tokio::time::sleep(8 * PAUSE).await;
    }
}

impl Shared {
    fn note_gap(&self, gap: Duration) {
        let mut longest = self.longest_gap.lock().unwrap();
        *longest = gap.max(*longest);
    }
}

/// What was tried twice under one key is there once.
async fn no_key_made_two(arena: &Arena, shared: &Shared) {
    let client = mongodb::Client::with_uri_str(arena.store_url()).await.unwrap();
    let jobs = client.default_database().unwrap().collection::<mongodb::bson::Document>("jobs");
    let with_key = jobs.count_documents(mongodb::bson::doc! { "tags": shared.tag.clone() }).await.unwrap();
    let keys = client.default_database().unwrap().collection::<mongodb::bson::Document>("idempotency_keys");
    let keys_used = keys.count_documents(mongodb::bson::doc! {}).await.unwrap();
    keys.delete_many(mongodb::bson::doc! {}).await.unwrap();
    assert_eq!(with_key, keys_used, "jobs and the keys they were submitted under");
}

/// Checks each accepted job: it succeeded once, nothing ran after that, and every run beyond the script is explained by its
/// history. Answers how many such runs there were.
async fn check(serve: &Process, fleet: &Fleet, accepted: &[Accepted]) -> usize {
    let read = stream::iter(accepted).map(|a| async move {
        // The counts of a queue are not one reading: a job on its way from one state to the next may be in none of them.
        let job = serve.get(&format!("/api/v1/jobs/{}?wait=30", a.id)).await;
        (a, job.unwrap_or_else(|| panic!("accepted job {} is lost", a.id)))
    });
    let jobs: Vec<(&Accepted, Value)> = read.buffer_unordered(4).collect().await;
    // After the jobs: the last of them may just have begun.
    let mut lines: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in fleet.appended("ran") {
        let (id, run) = line.split_once(' ').unwrap();
        lines.entry(id.to_owned()).or_default().push(run.parse().unwrap());
    }
    let mut extra = 0;
    for (a, job) in jobs {
        assert_eq!(job["state"], "succeeded", "{job}");
        let (runs, attempts) = (a.runs, job["attempts"].as_array().unwrap());
        let of = |outcome: &str| attempts.iter().filter(|a| a["outcome"] == outcome).count();
        assert_eq!(of("succeeded"), 1, "{job}");
        // A run that was to fail may have been lost before it could say so; the script goes by runs.
        let scripted = |a: &&Value| (a["run"].as_u64().unwrap() as usize) < runs;
        let (early, late): (Vec<&Value>, Vec<&Value>) = attempts.iter().partition(scripted);
        assert_eq!(early.len(), runs - 1, "a run that is not in the history: {job}");
        assert!(early.iter().all(|a| a["outcome"] != "succeeded"), "a run that should have failed: {job}");
        assert!(late.iter().all(|a| a["outcome"] != "failed"), "a failure that nothing explains: {job}");
        assert_eq!(of("failed") + of("lost") + of("released") + 1, attempts.len(), "an unknown outcome: {job}");
        assert_eq!(job["crashes"], of("lost"), "{job}");
        let last = attempts.last().unwrap();
        assert_eq!(last["outcome"], "succeeded", "{job}");
        let none = Vec::new();
        let mine = lines.get(&a.id).unwrap_or(&none);
        let known: BTreeSet<u64> = attempts.iter().map(|a| a["run"].as_u64().unwrap()).collect();
        assert_eq!(mine.iter().collect::<BTreeSet<_>>().len(), mine.len(), "a run began twice: {mine:?}, {job}");
        assert!(mine.iter().all(|run| known.contains(run)), "a run is not in the history: {mine:?}, {job}");
        assert!(mine.contains(&last["run"].as_u64().unwrap()), "succeeded without a run: {job}");
        extra += mine.len().saturating_sub(a.runs);
    }
    extra
}
