//! temp
use app::{
    base::{clock::Clock, shutdown::Shutdown},
    config,
    jobs::{
        service::{Origin, Submit},
        store::*,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
fn cfg(path: &str, slots: usize) -> config::Config {
    let sources = config::load::Sources {
        env: vec![
            ("APP__STORE__URL".into(), format!("sqlite://{path}")),
            ("APP__WORKER__CONCURRENCY".into(), slots.to_string()),
        ]
        .into_iter()
        .collect(),
        ..Default::default()
    };
    config::load::load(&sources).unwrap()
}
fn submit() -> Submit {
    Submit {
        kind: app::base::id::KindName::new("noop").unwrap(),
        payload: None,
        queue: None,
        priority: None,
        run_at: None,
        delay: None,
        max_attempts: None,
        timeout: None,
        backoff: None,
        tags: vec![],
    }
}
fn main() {
    let rt = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    rt.block_on(async {
        for slots in [64usize, 64, 256] {
            let dir = tempfile::tempdir_in(".").unwrap();
            let app = app::app::build(cfg(dir.path().join("a.db").to_str().unwrap(), slots), Clock::system()).unwrap();
            let n = 200_000usize;
            let t = Instant::now();
            let mut set = tokio::task::JoinSet::new();
            for c in 0..4 {
                let jobs = app.jobs.clone();
                set.spawn(async move {
                    for _ in 0..n / 4000 {
                        jobs.submit((0..1000).map(|_| submit()).collect(), &Origin::default(), None, |_| vec![])
                            .await
                            .unwrap();
                    }
                    c
                });
            }
            while set.join_next().await.is_some() {}
            let el = t.elapsed().as_secs_f64();
            println!("bulk submit {:.0}/s", n as f64 / el);
            let (d, mut o) = app.worker();
            o.max_jobs = n as u64;
            let t = Instant::now();
            app::worker::run(d, o, Shutdown::new()).await;
            println!("drain slots {slots}: {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
            let t = Instant::now();
            let mut set = tokio::task::JoinSet::new();
            for _ in 0..64 {
                let jobs = app.jobs.clone();
                set.spawn(async move {
                    for _ in 0..1000 {
                        jobs.submit(vec![submit()], &Origin::default(), None, |_| vec![]).await.unwrap();
                    }
                });
            }
            while set.join_next().await.is_some() {}
            println!("single submit x64 {:.0}/s", 64_000. / t.elapsed().as_secs_f64());
            let _ = (Arc::new(0), Duration::ZERO, JobFilter::default());
        }
    });
}
