//! Rights that belong to a kind of job: asked wherever its jobs are submitted, stopped, run again or forgotten.

use serde_json::json;

use super::*;
use crate::users::Scope;

const JOBS: &str = "/api/v1/jobs";
const DEAD: &str = "/api/v1/dead-letters";

/// Callers with every right that their routes ask for, and with more or less beside it.
struct Keys {
    /// Jobs and queues, nothing of notifications.
    operator: String,
    /// The same, and sees notifications.
    watcher: String,
    /// The same, and writes them.
    sender: String,
    /// Jobs alone.
    submitter: String,
}

impl Under {
    async fn keys(&self) -> Keys {
        let base = [Scope::JobsRead, Scope::JobsWrite, Scope::QueuesControl];
        let bearer = async |scopes: &[Scope]| format!("Bearer {}", self.key(scopes).await);
        Keys {
            operator: bearer(&base).await,
            watcher: bearer(&[&base[..], &[Scope::NotificationsRead]].concat()).await,
            sender: bearer(&[&base[..], &[Scope::NotificationsRead, Scope::NotificationsWrite]].concat()).await,
            submitter: bearer(&[Scope::JobsRead, Scope::JobsWrite]).await,
        }
    }

    /// A notification that failed and is a dead letter.
    async fn failed_notification(&self) -> String {
        let admin = format!("Bearer {}", self.key(&[Scope::Admin]).await);
        let template = json!({"code": "welcome", "parts": {"email": {"subject": "Hi", "text": "t"}}});
        // Made once: a second failed notification uses the same.
        self.call(Method::POST, "/api/v1/templates", &admin, template).await;
        let send = json!({"notification_type": "email", "recipients": [{"email": "ada@example.com"}],
            "template_code": "welcome"});
        let sent = self.call(Method::POST, "/api/v1/notifications", &admin, send).await;
        assert_eq!(sent.status, 202, "{}", sent.json());
        let listed = self.call(Method::GET, &format!("{JOBS}?kind=notification.email"), &admin, Value::Null).await;
        let id = listed.json()["data"][0]["id"].as_str().unwrap().to_owned();
        self.fail(&id).await;
        id
    }

    async fn state_of(&self, id: &str) -> String {
        let job = self.state.jobs.get(id.parse().unwrap()).await.unwrap();
        job.state.as_str().to_owned()
    }
}

#[actix_web::test]
async fn a_notification_is_stopped_and_repeated_only_by_those_who_write_notifications() {
    let t = Under::required().await;
    let keys = t.keys().await;
    let id = t.failed_notification().await;
    for act in ["retry", "cancel"] {
        let path = format!("{JOBS}/{id}/{act}");
        t.call(Method::POST, &path, &keys.submitter, Value::Null).await.problem(404, "not_found");
        t.call(Method::POST, &path, &keys.operator, Value::Null).await.problem(404, "not_found");
        let refused = t.call(Method::POST, &path, &keys.watcher, Value::Null).await;
        refused.problem(403, "forbidden");
        assert!(refused.json()["detail"].as_str().unwrap().contains("notifications:write"), "{}", refused.json());
    }
    assert_eq!(t.state_of(&id).await, "failed");
    assert_eq!(t.call(Method::POST, &format!("{JOBS}/{id}/retry"), &keys.sender, Value::Null).await.status, 200);
    assert_eq!(t.call(Method::POST, &format!("{JOBS}/{id}/cancel"), &keys.sender, Value::Null).await.status, 200);
    assert_eq!(t.state_of(&id).await, "cancelled");
}

#[actix_web::test]
async fn whoever_writes_notifications_but_does_not_read_them_is_told_of_none() {
    let t = Under::required().await;
    let scopes = [Scope::JobsRead, Scope::JobsWrite, Scope::QueuesControl, Scope::NotificationsWrite];
    let blind = format!("Bearer {}", t.key(&scopes).await);
    let id = t.failed_notification().await;
    // The answer would be the job, with what was written to another.
    t.call(Method::POST, &format!("{JOBS}/{id}/retry"), &blind, Value::Null).await.problem(404, "not_found");
    let body = json!({"filter": {"ids": [id]}});
    let answer = t.call(Method::POST, &format!("{DEAD}/replay"), &blind, body).await;
    assert_eq!(answer.json()["matched"], 0);
    assert_eq!(t.state_of(&id).await, "failed");
}

#[actix_web::test]
async fn a_queue_of_notifications_is_emptied_by_those_who_write_them() {
    let t = Under::required().await;
    let keys = t.keys().await;
    for queue in ["email", "push", "webhook", "console", "events"] {
        let path = format!("/api/v1/queues/{queue}/purge");
        for auth in [&keys.operator, &keys.watcher] {
            t.call(Method::POST, &path, auth, Value::Null).await.problem(403, "forbidden");
        }
        assert_eq!(t.call(Method::POST, &path, &keys.sender, Value::Null).await.status, 200, "{queue}");
    }
    let purged = t.call(Method::POST, "/api/v1/queues/default/purge", &keys.operator, Value::Null).await;
    assert_eq!(purged.status, 200);
}

#[actix_web::test]
async fn bulk_acts_meet_only_what_the_caller_may_act_on() {
    let t = Under::required().await;
    let keys = t.keys().await;
    let (noop, mail) = (t.dead_by(&keys.submitter, json!({"kind": "noop"})).await, t.failed_notification().await);
    let act = async |act: &str, auth: &str, filter: Value, dry_run: bool| {
        let body = json!({"filter": filter, "dry_run": dry_run});
        t.call(Method::POST, &format!("{DEAD}/{act}"), auth, body).await
    };
    for name in ["replay", "discard"] {
        // A dry run tells what the caller may see, and no more: errors hold what was written to others.
        for (auth, met) in [(&keys.operator, 1), (&keys.watcher, 2), (&keys.sender, 2)] {
            let met_now = act(name, auth, json!({"error_contains": "broke"}), true).await.json()["matched"].clone();
            assert_eq!(met_now, met, "{name}");
        }
        let of_kind = json!({"kind": "notification.email"});
        for (auth, dry, seen) in
            [(&keys.operator, true, 403), (&keys.operator, false, 403), (&keys.watcher, false, 403)]
        {
            let answer = act(name, auth, of_kind.clone(), dry).await;
            assert_eq!(answer.status, seen, "{name} {dry}");
            assert!(answer.json()["detail"].as_str().unwrap().contains("notifications:"), "{}", answer.json());
        }
        // Named and seen is refused; named and not seen is not there.
        act(name, &keys.watcher, json!({"ids": [mail]}), false).await.problem(403, "forbidden");
        assert_eq!(act(name, &keys.operator, json!({"ids": [mail]}), false).await.json()["matched"], 0);
    }
    assert_eq!(t.state_of(&mail).await, "failed");
    let all = act("replay", &keys.watcher, json!({}), false).await.json();
    assert_eq!((&all["matched"], &all["ids"][0]), (&json!(1), &json!(noop)));
    assert_eq!((t.state_of(&noop).await, t.state_of(&mail).await), ("queued".to_owned(), "failed".to_owned()));
    assert_eq!(act("discard", &keys.sender, json!({"ids": [mail]}), false).await.json()["discarded"], 1);
}

#[actix_web::test]
async fn what_a_notification_says_is_never_edited() {
    let t = Under::required().await;
    let keys = t.keys().await;
    let id = t.failed_notification().await;
    let payload = json!({"v": 1, "to": {"email": "other@example.com"},
        "template": {"code": "welcome", "locale": "default", "version": 1}});
    for filter in [json!({"kind": "notification.email"}), json!({"ids": [id]}), json!({})] {
        let body = json!({"filter": filter, "edit": {"payload": payload}});
        let answer = t.call(Method::POST, &format!("{DEAD}/replay"), &keys.sender, body).await;
        assert_eq!(answer.problem(400, "invalid_request"), ["edit.payload"]);
    }
    assert_eq!(t.state_of(&id).await, "failed");
    let slower = json!({"filter": {"ids": [id]}, "edit": {"priority": "low"}});
    assert_eq!(t.call(Method::POST, &format!("{DEAD}/replay"), &keys.sender, slower).await.json()["replayed"], 1);
}

#[actix_web::test]
async fn the_clean_up_needs_control_of_queues_by_every_door() {
    let t = Under::required().await;
    let keys = t.keys().await;
    let clean = json!({"kind": "scheduled_cleanup_task", "payload": {"failed_older_than": 0}});
    for (path, body) in [
        (JOBS.to_owned(), clean.clone()),
        (format!("{JOBS}/bulk"), json!({"jobs": [{"kind": "noop"}, clean]})),
        (format!("{JOBS}/bulk"), json!({"jobs": [clean]})),
    ] {
        let refused = t.call(Method::POST, &path, &keys.submitter, body.clone()).await;
        refused.problem(403, "forbidden");
        assert!(refused.json()["detail"].as_str().unwrap().contains("queues:control"), "{}", refused.json());
        assert_eq!(t.call(Method::POST, &path, &keys.operator, body).await.status, 202, "{path}");
    }
    let listed = t.call(Method::GET, &format!("{JOBS}?kind=noop"), &keys.submitter, Value::Null).await;
    assert_eq!(listed.json()["data"].as_array().map(Vec::len), Some(1), "a refused bulk submission leaves nothing");
    let cleanups =
        t.call(Method::GET, &format!("{JOBS}?kind=scheduled_cleanup_task"), &keys.submitter, Value::Null).await;
    let id = cleanups.json()["data"][0]["id"].as_str().unwrap().to_owned();
    t.call(Method::POST, &format!("{JOBS}/{id}/cancel"), &keys.submitter, Value::Null).await.problem(403, "forbidden");
    assert_eq!(t.call(Method::POST, &format!("{JOBS}/{id}/cancel"), &keys.operator, Value::Null).await.status, 200);
}

#[actix_web::test]
async fn internal_kinds_are_submitted_by_the_program_alone() {
    let t = Under::required().await;
    let admin = format!("Bearer {}", t.key(&[Scope::Admin]).await);
    for kind in ["notification.email", "notification.console", "event"] {
        let one = t.call(Method::POST, JOBS, &admin, json!({"kind": kind, "payload": {}})).await;
        assert_eq!(one.problem(400, "invalid_request"), ["kind"]);
        let jobs = json!({"jobs": [{"kind": "noop"}, {"kind": kind}]});
        let bulk = t.call(Method::POST, &format!("{JOBS}/bulk"), &admin, jobs).await;
        assert_eq!(bulk.problem(400, "invalid_request"), ["jobs[1].kind"]);
        let alone = t.call(Method::POST, &format!("{JOBS}/bulk"), &admin, json!({"jobs": [{"kind": kind}]})).await;
        assert_eq!(alone.problem(400, "invalid_request"), ["jobs[0].kind"]);
    }
}
