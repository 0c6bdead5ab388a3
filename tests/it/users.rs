//! The real binary with `auth.mode = "required"`: the first administrator, a life with tokens and keys, what a program that
//! is not ours makes of a token, and that no secret is ever written down.

use std::path::Path;

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    cli::run::run_in,
    support::{
        fleet::{Fleet, Via},
        process::{Process, Server, client, free_port, output},
        servers::{redis_url, unique},
        wait_until,
    },
};

const PASSWORD: &str = "correct horse battery";
const KEY: &str = "first:0123456789abcdef0123456789abcdef-signs";
/// Callers must say who they are.
pub(crate) const REQUIRED: &[(&str, &str)] =
    &[("APP__AUTH__MODE", "required"), ("APP__AUTH__JWT_KEYS", KEY), ("APP__AUTH__REGISTRATION", "open")];

struct Asked {
    status: StatusCode,
    body: Value,
}

async fn ask(process: &Process, method: Method, path: &str, auth: &str, body: &Value) -> Asked {
    let mut request = client().request(method, format!("{}{path}", process.url));
    if !auth.is_empty() {
        request = request.bearer_auth(auth);
    }
    if !body.is_null() {
        request = request.json(body);
    }
    let answer = request.send().await.unwrap();
    Asked { status: answer.status(), body: answer.json().await.unwrap_or_default() }
}

/// Logs in a user of these tests.
pub(crate) async fn login(process: &Process, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD});
    let asked = ask(process, Method::POST, "/api/v1/auth/login", "", &body).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    asked.body["access_token"].as_str().unwrap().to_owned()
}

/// Makes the administrator in the store that [`Process::start`] uses.
pub(crate) async fn admin(dir: &Path) {
    let store = format!("sqlite://{}", dir.join("app.db").display());
    let args = ["users", "create-admin", "--email", "root@example.com", "--password-file", "-", "--store-url", &store];
    let args = [&args[..], &["--create"]].concat();
    for said in ["made administrator root@example.com", "nothing to do, there is administrator root@example.com"] {
        let ended = run_in(dir, &args, &[], &format!("{PASSWORD}\n")).await;
        assert!(ended.code == Some(0) && ended.out.starts_with(said), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_but_who_is_known_and_no_secret_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    admin(dir.path()).await;
    let mut process = Process::start(dir.path(), REQUIRED).await;
    let get = async |path: &str, auth: &str| ask(&process, Method::GET, path, auth, &Value::Null).await;
    assert_eq!(get("/api/v1/items", "").await.status, 401);
    assert_eq!(get("/health", "").await.status, 200);
    let root = login(&process, "root@example.com").await;
    assert_eq!(get("/api/v1/users", &root).await.status, 200);
    let new = json!({"email": "ada@example.com", "name": "Ada", "password": PASSWORD});
    let made = ask(&process, Method::POST, "/api/v1/auth/register", "", &new).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let ada = login(&process, "ada@example.com").await;
    assert_eq!(get("/api/v1/users", &ada).await.status, 403);
    assert_eq!(get("/api/v1/auth/me", &ada).await.body["email"], "ada@example.com");
    let key = json!({"name": "ci", "scopes": ["jobs:read"]});
    let key =
        ask(&process, Method::POST, "/api/v1/api-keys", &root, &key).await.body["key"].as_str().unwrap().to_owned();

    // The command line shows its token.
    let line = async |token: &str| {
        let env = [("APP_URL", process.url.as_str()), ("APP_TOKEN", token)];
        run_in(dir.path(), &["queues", "list", "--json"], &env, "").await
    };
    assert_eq!(line(&key).await.code, Some(0));
    let refused = line("").await;
    assert!(refused.code == Some(5) && refused.err.contains("say who you are"), "{refused:?}");

    // Tokens outlive the process, for its key does.
    process.signal(Signal::TERM);
    assert_eq!(process.exit().await.code(), Some(0));
    let log = process.log();
    drop(process);
    let process = Process::start(dir.path(), REQUIRED).await;
    let again = ask(&process, Method::GET, "/api/v1/auth/me", &ada, &Value::Null).await;
    assert_eq!(again.body["email"], "ada@example.com");
    let wrong = json!({"email": "ada@example.com", "password": "hunter2-hunter2"});
    assert_eq!(ask(&process, Method::POST, "/api/v1/auth/login", "", &wrong).await.status, 401);

    let shown = run_in(dir.path(), &["config", "show"], REQUIRED, "").await;
    assert!(shown.out.contains("jwt_keys = [\"first:***\"]"), "{}", shown.out);
    let written = format!("{log}{}{}", process.log(), shown.out);
    for secret in [PASSWORD, "hunter2-hunter2", &ada, &root, &key, &KEY[6..], "argon2id"] {
        assert!(!written.contains(secret), "`{secret}` was written down:\n{written}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_read_through_redis_and_never_stale() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let redis = Server::start("redis", dir.path(), port);
    let url = format!("redis://127.0.0.1:{port}");
    admin(dir.path()).await;
    let env: Vec<_> = REQUIRED.iter().copied().chain([("APP__CACHE__URL", url.as_str())]).collect();
    let process = Process::start(dir.path(), &env).await;
    wait_until("Redis is connected", async || {
        process.get("/health").await.is_some_and(|h| h["services"]["redis"] == "connected")
    })
    .await;
    let root = login(&process, "root@example.com").await;
    let new = json!({"email": "ada@example.com", "name": "Ada", "password": PASSWORD});
    let ada = ask(&process, Method::POST, "/api/v1/users", &root, &new).await.body;
    let path = format!("/api/v1/users/{}", ada["id"].as_str().unwrap());
    let token = login(&process, "ada@example.com").await;
    let hits = async || {
        let page = client().get(format!("{}/metrics", process.url)).send().await.unwrap().text().await.unwrap();
        let line = "app_cache_lookups_total{cache=\"users\",result=\"hit\"}";
        page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let read = async || ask(&process, Method::GET, &path, &token, &Value::Null).await;
    assert_eq!(read().await.body, ada);
    let before = hits().await;
    for _ in 0..5 {
        assert_eq!(read().await.body, ada, "what is cached is what was stored");
    }
    assert!(hits().await >= before + 10, "each reads the caller and the user");
    for name in ["second", "third"] {
        let patched = ask(&process, Method::PATCH, &path, &token, &json!({"name": name})).await;
        assert_eq!(patched.status, 200);
        assert_eq!(read().await.body["name"], name);
    }
    let shut_out = ask(&process, Method::PATCH, &path, &root, &json!({"disabled": true})).await;
    assert_eq!(shut_out.status, 200);
    assert_eq!(read().await.status, 401, "who is shut out is out at once");
    let back = ask(&process, Method::PATCH, &path, &root, &json!({"disabled": false})).await;
    assert_eq!((back.status, read().await.status), (StatusCode::OK, StatusCode::OK));
    // Away: slower, not broken.
    drop(redis);
    assert_eq!(read().await.body["name"], "third");
    assert!(!login(&process, "ada@example.com").await.is_empty());
    assert_eq!(ask(&process, Method::DELETE, &path, &root, &Value::Null).await.status, 204);
    assert_eq!(read().await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_a_json_web_token_for_programs_that_are_not_ours() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/python");
    assert!(python.exists(), "PyJWT is missing: run `make tools`");
    let dir = tempfile::tempdir().unwrap();
    admin(dir.path()).await;
    let process = Process::start(dir.path(), REQUIRED).await;
    let token = login(&process, "root@example.com").await;
    // Reads our token, and makes one by the same key that is ours to read.
    let script = "import json, jwt, sys\n\
        token, key = sys.argv[1:]\n\
        assert jwt.get_unverified_header(token) == {'alg': 'HS256', 'typ': 'JWT', 'kid': 'first'}\n\
        claims = jwt.decode(token, key, algorithms=['HS256'], audience='app', issuer='app', \
        options={'require': ['exp', 'iat', 'iss', 'aud', 'sub']})\n\
        assert claims['role'] == 'admin' and claims['exp'] - claims['iat'] == 3600, claims\n\
        print(jwt.encode(claims, key, algorithm='HS256', headers={'kid': 'first'}))\n\
        print(jwt.encode(claims, '', algorithm='none', headers={'kid': 'first'}))\n\
        print(jwt.encode(claims, key + 'x', algorithm='HS256', headers={'kid': 'first'}))\n\
        print(jwt.encode({**claims, 'exp': claims['iat'] - 1}, key, algorithm='HS256', headers={'kid': 'first'}))\n";
    let mut command = std::process::Command::new(python);
    command.args(["-c", script, &token, &KEY[6..]]);
    let ended = output(command).await;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (line, status) in lines.iter().zip([200, 401, 401, 401]) {
        let asked = ask(&process, Method::GET, "/api/v1/auth/me", line, &Value::Null).await;
        assert_eq!(asked.status, status, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_fleet_know_the_same_people_at_once() {
    for cached in [false, true] {
        let mut fleet = Fleet::shared(Via::Redis).await;
        for (name, value) in REQUIRED {
            fleet.set(name, value);
        }
        if cached {
            fleet.set("APP__CACHE__URL", &redis_url());
            fleet.set("APP__CACHE__PREFIX", &unique());
        }
        let store = fleet.setting("APP__STORE__URL").to_owned();
        let args =
            ["users", "create-admin", "--email", "root@example.com", "--password-file", "-", "--store-url", &store];
        let args = [&args[..], &["--create"]].concat();
        for said in ["made administrator", "nothing to do"] {
            let ended = run_in(&fleet.file(""), &args, &[], PASSWORD).await;
            assert!(ended.code == Some(0) && ended.out.starts_with(said), "{ended:?}");
        }
        let (one, two) = (fleet.serve().await, fleet.serve().await);
        let root = login(&one, "root@example.com").await;
        let new = json!({"email": "ada@example.com", "name": "Ada", "password": PASSWORD});
        let ada = ask(&one, Method::POST, "/api/v1/auth/register", "", &new).await.body;
        let again = ask(&two, Method::POST, "/api/v1/auth/register", "", &new).await;
        assert_eq!(again.status, 409, "{}", again.body);
        let token = login(&two, "ada@example.com").await;
        let path = format!("/api/v1/users/{}", ada["id"].as_str().unwrap());
        let key = json!({"name": "k", "scopes": ["items:read"]});
        let key = ask(&two, Method::POST, "/api/v1/api-keys", &root, &key).await.body;
        let (text, key) = (key["key"].as_str().unwrap(), format!("/api/v1/api-keys/{}", key["id"].as_str().unwrap()));
        for at in [&one, &two] {
            assert_eq!(ask(at, Method::GET, &path, &token, &Value::Null).await.body, ada);
            assert_eq!(ask(at, Method::GET, "/api/v1/items", text, &Value::Null).await.status, 200);
            assert_eq!(ask(at, Method::GET, "/api/v1/users", &token, &Value::Null).await.status, 403);
        }
        assert_eq!(ask(&one, Method::PATCH, &path, &root, &json!({"role": "admin"})).await.status, 200);
        let listed = ask(&two, Method::GET, "/api/v1/users?role=admin", &token, &Value::Null).await;
        assert_eq!(listed.body["data"].as_array().map(Vec::len), Some(2), "{}", listed.body);
        assert_eq!(ask(&two, Method::PATCH, &path, &root, &json!({"disabled": true})).await.status, 200);
        assert_eq!(ask(&one, Method::GET, &path, &token, &Value::Null).await.status, 401);
        assert_eq!(ask(&two, Method::DELETE, &key, &root, &Value::Null).await.status, 204);
        assert_eq!(ask(&one, Method::GET, "/api/v1/items", text, &Value::Null).await.status, 401);
    }
}

#[tokio::test]
async fn servers_that_share_a_store_do_not_start_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let env = [
        ("APP__AUTH__MODE", "required"),
        ("APP__STORE__URL", "mongodb://127.0.0.1:1/app"),
        ("APP__BROKER__URL", "redis://127.0.0.1:1"),
    ];
    let ended = run_in(dir.path(), &["serve", "--port", "0"], &env, "").await;
    assert!(ended.code == Some(3) && ended.sentence().contains("`auth.jwt_keys` is empty"), "{ended:?}");
    let ended = run_in(dir.path(), &["users", "create-admin", "--email", "a@example.com"], &[], "").await;
    assert!(ended.code == Some(2) && ended.sentence().contains("no password"), "{ended:?}");
}
