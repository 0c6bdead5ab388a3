//! What a stranger does in the first hour: looks before the start, makes an administrator, follows
//! the README. Nothing that only looks makes anything, and what is looked at is what the start
//! looks at.

use std::collections::BTreeSet;

use app::config::{self, Sources, WorkerQueues};

use crate::{
    cli::run::run_in,
    startup::{CONFIG, FAILED, contents, refused},
    support::process::Process,
};

const ADMIN: &[&str] = &["users", "create-admin", "--email", "root@example.com", "--password-file", "-"];
const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_makes_nothing_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (url, name) in [("sqlite://data/app.db", "data/app.db"), ("sqlite://tpyo/a/app.db", "tpyo/a/app.db")] {
        let doctor = run_in(dir.path(), &["doctor", "--store-url", url], &[], "").await;
        let says = format!("there is no database at {}; `app all` would make it", at(name));
        assert!(doctor.code == Some(1) && doctor.out.contains(&says), "{doctor:?}");
        // The rest is looked at all the same.
        assert!(doctor.out.contains("embedded: ok") && doctor.out.contains("memory: ok"), "{doctor:?}");
        assert!(contents(dir.path()).is_empty(), "{:?}", contents(dir.path()).keys());
    }
    let migrated = run_in(dir.path(), &["migrate"], &[], "").await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let before = contents(dir.path());
    let doctor = run_in(dir.path(), &["doctor"], &[], "").await;
    let fine = format!("sqlite: ok ({})", at("data/app.db"));
    assert!(doctor.code == Some(0) && doctor.out.contains(&fine), "{doctor:?}");
    assert!(contents(dir.path()) == before, "the doctor changed something");
    // A process that has it open is no fault of the database.
    let process = Process::start(dir.path(), &[]).await;
    let doctor = run_in(dir.path(), &["doctor", "--store-url", "sqlite://app.db"], &[], "").await;
    assert!(doctor.code == Some(0) && doctor.out.contains("sqlite: ok"), "{doctor:?}");
    assert!(process.get("/health").await.is_some());
}

#[tokio::test]
async fn the_doctor_refuses_what_cannot_be_a_database() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text.db"), "Dear diary, this is no database.\n".repeat(300)).unwrap();
    std::fs::write(dir.path().join("data"), "a file in the way").unwrap();
    for (url, says) in [
        ("sqlite://text.db", "sqlite: refused"),
        ("sqlite://text.db", "not a database"),
        ("sqlite://data/app.db", "sqlite: refused"),
    ] {
        let before = contents(dir.path());
        let doctor = run_in(dir.path(), &["doctor", "--store-url", url], &[], "").await;
        assert!(doctor.code == Some(1) && doctor.out.contains(says), "{doctor:?}");
        assert!(contents(dir.path()) == before, "the doctor changed something");
    }
}

/// Each is refused by the start; whoever asks first hears the same sentence, and nothing is made.
#[tokio::test]
async fn a_check_says_what_the_start_would_say() {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("APP__STORE__URL", "postgres://app:hunter2@h/x"),
        ("APP__STORE__URL", "redis://h"),
        ("APP__STORE__URL", "sqlite://"),
        ("APP__STORE__URL", "mongodb://h/x?nonsense=1&w=many"),
        ("APP__BROKER__URL", "kafka://x"),
        ("APP__BROKER__URL", "http://x"),
        ("APP__BROKER__URL", "redis://h:port"),
        ("APP__BROKER__URL", "amqp://h:port"),
        ("APP__CACHE__URL", "memcached://h"),
        ("APP__CACHE__URL", "redis://h:port"),
        ("APP__NOTIFICATIONS__RULES", "item.eaten console event log"),
        ("APP__PUSH__VAPID_PRIVATE_KEY", "short"),
        ("APP__PUSH__FCM_CREDENTIALS", "{}"),
    ] {
        let env = [(name, value)];
        let start = run_in(dir.path(), &["all", "--port", "0"], &env, "").await;
        let sentence = start.sentence().to_owned();
        assert_eq!(start.code, Some(CONFIG), "{name}={value}: {start:?}");
        for args in [&["config", "check"][..], &["doctor"]] {
            refused(dir.path(), args, &env, CONFIG, &[&sentence]).await;
        }
        assert!(contents(dir.path()).is_empty(), "{name}={value} made something");
    }
    for url in ["mongodb://127.0.0.1:1/x", "sqlite://never/made.db"] {
        let env = [("APP__STORE__URL", url), ("APP__BROKER__URL", "redis://127.0.0.1:1")];
        let right = run_in(dir.path(), &["config", "check"], &env, "").await;
        assert!(right.code == Some(0) && contents(dir.path()).is_empty(), "a check asks nobody: {right:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_made_where_it_is_said_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/app.db").display().to_string();
    let there_is_none = format!("there is no database at {path}");
    for _ in 0..2 {
        let ended = run_in(dir.path(), ADMIN, &[], PASSWORD).await;
        assert_eq!(ended.code, Some(FAILED), "{ended:?}");
        let sentence = ended.sentence();
        assert!(sentence.contains(&there_is_none) && sentence.contains("--create"), "{ended:?}");
        assert!(contents(dir.path()).is_empty(), "{:?}", contents(dir.path()).keys());
    }
    let made = run_in(dir.path(), &[ADMIN, &["--create"]].concat(), &[], PASSWORD).await;
    let says = format!(" in {path}");
    assert!(made.code == Some(0) && made.out.trim_end().ends_with(&says), "{made:?}");
    assert!(made.err.contains(&format!("new, empty database at {path}")), "{made:?}");
    let again = run_in(dir.path(), ADMIN, &[], PASSWORD).await;
    assert!(again.code == Some(0) && again.out.starts_with("nothing to do"), "{again:?}");
}

#[tokio::test]
async fn who_is_refused_as_an_administrator_leaves_no_database() {
    let dir = tempfile::tempdir().unwrap();
    let create =
        |email| [&["users", "create-admin", "--create", "--password-file", "-", "--email", email][..]].concat();
    for (email, password, part) in [("root@example.com", "short", "password"), ("nobody", PASSWORD, "email")] {
        let refused = run_in(dir.path(), &create(email), &[], password).await;
        assert!(refused.code == Some(FAILED) && refused.sentence().contains(part), "{refused:?}");
        assert!(contents(dir.path()).is_empty(), "{:?}", contents(dir.path()).keys());
    }
}

#[tokio::test]
async fn the_configuration_that_is_shown_names_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/app.db").display().to_string();
    let shown = run_in(dir.path(), &["config", "show"], &[], "").await;
    assert_eq!(shown.out.lines().next(), Some(format!("# The database is {path}").as_str()), "{shown:?}");
    let env = [("APP__STORE__URL", "mongodb://u:hunter2@h")];
    let shown = run_in(dir.path(), &["config", "show"], &env, "").await;
    assert!(shown.out.starts_with("# The database is mongodb://u:***@h (database `app`)"), "{shown:?}");
    assert!(contents(dir.path()).is_empty());
}

/// Whoever types the README's lines has a worker for every queue that the program itself fills.
#[test]
fn the_readmes_fleet_serves_every_queue() {
    let readme = include_str!("../../README.md");
    let (_, fleet) = readme.split_once("\n## On a fleet\n").unwrap();
    let fleet = fleet.split("\n## ").next().unwrap();
    let mut served = BTreeSet::new();
    for line in fleet.lines().filter(|l| l.starts_with("app worker")) {
        let queues = line.split_once("--queues ").unwrap().1.split_ascii_whitespace().next().unwrap();
        let queues: Vec<&str> = queues.split(',').collect();
        served.extend(WorkerQueues::parse(&queues).unwrap().0.into_iter().map(|(name, _)| name));
    }
    let all = config::load(&Sources::default()).unwrap().worker.queues;
    let missing: Vec<_> = all.0.iter().filter(|(name, _)| !served.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
