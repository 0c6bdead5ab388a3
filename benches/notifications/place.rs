//! Where one measurement runs: backends with nothing in them, and processes of the program over them.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{SLOTS, receive::Receiver};

/// The sender.
pub(crate) const FROM: &str = "app@example.org";
/// What mails say.
pub(crate) const TEXT: &str = "Hello {{ name }},\n\nyour account is ready. Come in whenever you like.\n\nThe house\n";
/// The same for readers that show HTML.
pub(crate) const HTML: &str =
    "<html><body><p>Hello <b>{{ name }}</b>,</p><p>your account is ready. Come in.</p></body></html>";
/// Users that there are.
pub(crate) const USERS: usize = 1000;

/// A store, a broker and a cache of its own.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    env: Vec<(&'static str, String)>,
    _dir: Option<tempfile::TempDir>,
}

/// A running process; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    client: reqwest::Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Place {
    /// A SQLite file on the disk the build is on: `/tmp` may be memory, where a sync costs nothing.
    pub(crate) fn embedded() -> Self {
        let dir = tempfile::Builder::new().prefix("bench").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let env = vec![("APP__STORE__URL", format!("sqlite://{}", dir.path().join("app.db").display()))];
        Self { name: "embedded", env, _dir: Some(dir) }
    }

    /// A database and prefixes of its own in these servers. What is left there ends with the servers.
    pub(crate) async fn fleet(mongodb: &str, redis: &str) -> Self {
        initiate(mongodb).await;
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let (base, options) = mongodb.split_once('?').unwrap_or((mongodb, ""));
        let env = vec![
            ("APP__STORE__URL", format!("{}/bench_{unique}?{options}", base.trim_end_matches('/'))),
            ("APP__BROKER__URL", redis.to_owned()),
            ("APP__BROKER__PREFIX", format!("bench-{unique}-")),
            ("APP__CACHE__URL", redis.to_owned()),
            ("APP__CACHE__PREFIX", format!("bench-{unique}")),
        ];
        Self { name: "mongodb + redis", env, _dir: None }
    }

    /// Starts `app all`, which works on these queues.
    pub(crate) async fn start(&self, queues: &str, more: &[(&str, String)]) -> Server {
        let port = free_port();
        let program = std::env::var("BENCH_APP").unwrap_or_else(|_| env!("CARGO_BIN_EXE_app").to_owned());
        let mut command = Command::new(program);
        command.args(["all", "--queues", queues, "--port", &port.to_string()]);
        command.env("APP__LOG__LEVEL", "warn").env("APP__LOG__REQUESTS", "off");
        command.env("APP__WEBHOOK__ALLOW_HTTP", "true").env("APP__WEBHOOK__ALLOW_PRIVATE", "true");
        command.env("APP__WORKER__CONCURRENCY", SLOTS.to_string());
        command.envs(self.env.iter().cloned()).envs(more.iter().cloned());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().unwrap();
        let server = Server { child, port, client };
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.get("/health/ready").await.is_none() {
            assert!(Instant::now() < deadline, "{} did not get ready", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    /// Starts it with a queue that nobody fills, so that all else waits.
    pub(crate) async fn accepting(&self) -> Server {
        self.start("unused", &[]).await
    }
}

/// Settings that send mail to `relay`.
pub(crate) fn mail_to(relay: &Receiver) -> Vec<(&'static str, String)> {
    vec![
        ("APP__EMAIL__HOST", "127.0.0.1".to_owned()),
        ("APP__EMAIL__PORT", relay.port.to_string()),
        ("APP__EMAIL__TLS", "none".to_owned()),
        ("APP__EMAIL__FROM", FROM.to_owned()),
        ("APP__EMAIL__MAX_CONNECTIONS", SLOTS.to_string()),
    ]
}

impl Server {
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("http://127.0.0.1:{}{path}", self.port)).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        Some(serde_json::from_slice(&answer.bytes().await.ok()?).unwrap_or_default())
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.client.post(format!("http://127.0.0.1:{}{path}", self.port)).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// How many jobs of a queue wait and run, by the API's own count.
    pub(crate) async fn depth(&self, queue: &str) -> (u64, u64) {
        let queue = self.get(&format!("/api/v1/queues/{queue}")).await.unwrap_or_default();
        (queue["queued"].as_u64().unwrap_or(0), queue["running"].as_u64().unwrap_or(0))
    }

    pub(crate) fn resident_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// Saves a template for mail and webhooks and makes [`USERS`] users, each with an endpoint at `hooks` if there is one;
    /// answers their ids.
    pub(crate) async fn furnish(&self, hooks: Option<&Receiver>) -> Vec<String> {
        let template = json!({
            "code": "welcome",
            "parts": {
                "email": { "subject": "Welcome, {{ name }}", "text": TEXT, "html": HTML },
                "webhook": r#"{"type": "welcome", "name": {{ name }}}"#,
            },
            "variables": [{ "name": "name", "example": "Ada" }],
        });
        self.post("/api/v1/templates", &template).await;
        let make = async |n: usize| {
            let user = json!({ "email": format!("user{n}@example.net"), "name": format!("User {n}") });
            let user = self.post("/api/v1/users", &user).await;
            let id = user["id"].as_str().unwrap().to_owned();
            if let Some(hooks) = hooks {
                let url = format!("http://127.0.0.1:{}/{n}", hooks.port);
                self.post(&format!("/api/v1/users/{id}/webhook-endpoints"), &json!({ "url": url })).await;
            }
            id
        };
        let mut users = Vec::with_capacity(USERS);
        for first in (0..USERS).step_by(50) {
            users.extend(futures_util::future::join_all((first..first + 50).map(make)).await);
        }
        users
    }
}

/// A request to send to one user.
pub(crate) fn to_one(channel: &str, user: &str) -> Value {
    json!({
        "notification_type": channel, "user_id": user, "template_code": "welcome",
        "variables": { "name": "Ada" }, "category": "news",
    })
}

/// A request to send to all of these users.
pub(crate) fn to_all(channel: &str, users: &[String]) -> Value {
    let recipients: Vec<Value> = users.iter().map(|id| json!({ "user_id": id })).collect();
    json!({
        "notification_type": channel, "recipients": recipients, "template_code": "welcome",
        "variables": { "name": "Ada" }, "category": "news",
    })
}

/// Makes a lone MongoDB a replica set of one; waits until it takes writes.
async fn initiate(server: &str) {
    let options = mongodb::options::ClientOptions::parse(server).await.unwrap();
    let host = options.hosts.first().map(ToString::to_string).unwrap();
    let admin = mongodb::Client::with_options(options).unwrap().database("admin");
    let set = mongodb::bson::doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
    // An error says that it is one already.
    drop(admin.run_command(mongodb::bson::doc! { "replSetInitiate": set }).await);
    loop {
        let hello = admin.run_command(mongodb::bson::doc! { "hello": 1 }).await;
        if hello.is_ok_and(|h| h.get_bool("isWritablePrimary").unwrap_or(false)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
