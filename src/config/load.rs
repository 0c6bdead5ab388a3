//! Stacks the layers: defaults < profile < file < environment < flags.
//!
//! The environment comes in as a map, so that tests need not change that of their process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Config, Error,
    keys::{Layer, Schema},
    resolve::{Fault, resolve},
    settings::Settings,
};

/// Where settings are looked for, besides the compiled-in defaults.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Directory of the profiles.
    pub profiles: PathBuf,
    /// Name of a profile: `<profiles>/<name>.toml`.
    pub profile: Option<String>,
    /// One more file, which wins over the profile.
    pub file: Option<PathBuf>,
    /// The environment; only names that begin with `APP__` are looked at.
    pub env: BTreeMap<String, String>,
    /// Keys and values given on the command line; they win over all.
    pub flags: Vec<(String, String)>,
}

impl Default for Sources {
    fn default() -> Self {
        Self { profiles: "config".into(), profile: None, file: None, env: BTreeMap::new(), flags: Vec::new() }
    }
}

/// Loads, merges and checks the configuration.
///
/// # Errors
/// One sentence that names the layer and the key at fault and says what would be right.
pub fn load(sources: &Sources) -> Result<Config, Error> {
    let (schema, defaults) = Schema::from_defaults()?;
    let mut layers = vec![defaults];
    if let Some(profile) = &sources.profile {
        layers.push(profile_layer(&schema, &sources.profiles, profile)?);
    }
    if let Some(file) = &sources.file {
        layers.push(schema.file_layer(&file.display().to_string(), &read(file, "the configuration file")?)?);
    }
    layers.push(env_layer(&schema, &sources.env)?);
    layers.push(flag_layer(&schema, &sources.flags)?);

    let mut origins = BTreeMap::new();
    let mut builder = config::Config::builder();
    for layer in layers {
        origins.extend(layer.origins.iter().cloned());
        builder = builder.add_source(layer);
    }
    let settings: Settings = builder
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|e| Error(format!("the configuration cannot be read: {e}")))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    resolve(&settings, cores).map_err(|Fault { key, message }| match origins.get(&key) {
        Some(origin) => Error(format!("`{key}` in {origin} {message}")),
        None => Error(format!("`{key}` {message}")),
    })
}

fn profile_layer(schema: &Schema, dir: &Path, profile: &str) -> Result<Layer, Error> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if profile.is_empty() || !profile.chars().all(ok) {
        return Err(Error(format!(
            "profile `{profile}` is not a name; write letters, digits, `-` and `_` only, or name a file with --config"
        )));
    }
    let path = dir.join(format!("{profile}.toml"));
    schema.file_layer(&path.display().to_string(), &read(&path, "the file of the chosen profile")?)
}

fn env_layer(schema: &Schema, env: &BTreeMap<String, String>) -> Result<Layer, Error> {
    let mut layer = Layer::default();
    for (name, value) in env {
        let Some(rest) = name.strip_prefix("APP__") else { continue };
        let origin = format!("environment variable {name}");
        let lower = rest.to_ascii_lowercase();
        let path: Vec<&str> = lower.split("__").collect();
        let stripped = without_file_suffix(&path).filter(|p| !schema.knows(&path) && schema.knows(p));
        let Some(plain) = stripped else {
            schema.add_text(&mut layer, &path, value, &origin)?;
            continue;
        };
        let twin = name.strip_suffix("_FILE").unwrap_or(name);
        if env.contains_key(twin) {
            return Err(Error(format!("environment variables {twin} and {name} are both set; keep one of them")));
        }
        let text = read(Path::new(value), &format!("the file that {origin} names"))?;
        // Editors and `kubectl create secret` end files with a newline that is not part of the secret.
        schema.add_text(&mut layer, &plain, text.trim_end_matches(['\r', '\n']), &origin)?;
    }
    Ok(layer)
}

fn without_file_suffix<'a>(path: &[&'a str]) -> Option<Vec<&'a str>> {
    let (last, front) = path.split_last()?;
    let mut plain = front.to_vec();
    plain.push(last.strip_suffix("_file")?);
    Some(plain)
}

fn flag_layer(schema: &Schema, flags: &[(String, String)]) -> Result<Layer, Error> {
    let mut layer = Layer::default();
    for (key, value) in flags {
        let path: Vec<&str> = key.split('.').collect();
        schema.add_text(&mut layer, &path, value, "the command line")?;
    }
    Ok(layer)
}

fn read(path: &Path, what: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error(format!("cannot read {what}, {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{AuthMode, LogFormat, Sync};

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn from_file(text: &str) -> Result<Config, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("test.toml"), text).unwrap();
        let mut result =
            load(&Sources { profiles: dir.path().to_owned(), profile: Some("test".to_owned()), ..Sources::default() });
        if let Err(Error(e)) = &mut result {
            *e = e.replace(&format!("{}/", dir.path().display()), "");
        }
        result
    }

    fn error_of_flag(key: &str, value: &str) -> String {
        load(&Sources { flags: flags(&[(key, value)]), ..Sources::default() }).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_name_every_setting() {
        let c = load(&Sources::default()).unwrap();
        assert_eq!(c.http.bind.to_string(), "127.0.0.1:8000");
        assert_eq!((c.store.sync, c.auth.mode, c.log.format), (Sync::Full, AuthMode::Loopback, LogFormat::Auto));
        assert_eq!((c.jobs.max_payload, c.http.max_body), (256 << 10, 1 << 20));
        assert_eq!(c.jobs.max_delay, Duration::from_secs(3650 * 86_400));
        assert!(c.worker.concurrency >= 4 && c.http.workers >= 1);
        assert_eq!(c.worker.queues.0.len(), 8);
    }

    #[test]
    fn later_layers_win() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("prod.toml"), "[jobs]\nbulk_max = 2\nmax_tags = 2\nmax_attempts = 2\n").unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "[jobs]\nmax_tags = 3\nmax_attempts = 3\ncrash_limit = 3\n").unwrap();
        let c = load(&Sources {
            profiles: dir.path().to_owned(),
            profile: Some("prod".to_owned()),
            file: Some(file),
            env: env(&[("APP__JOBS__MAX_ATTEMPTS", "4"), ("APP__JOBS__CRASH_LIMIT", "4"), ("APP_OTHER", "x")]),
            flags: flags(&[("jobs.crash_limit", "5")]),
        })
        .unwrap();
        assert_eq!((c.jobs.bulk_max, c.jobs.max_tags, c.jobs.max_attempts, c.jobs.crash_limit), (2, 3, 4, 5));
    }

    #[test]
    fn secrets_come_from_files_without_their_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("url");
        std::fs::write(&secret, "redis://:pw@host/0\n").unwrap();
        let path = secret.to_str().unwrap();
        let one = env(&[("APP__BROKER__URL_FILE", path)]);
        let c = load(&Sources { env: one, ..Sources::default() }).unwrap();
        assert_eq!(c.broker.url, "redis://:pw@host/0");
        assert!(!format!("{c:?}").contains("pw"));
        let both = env(&[("APP__BROKER__URL_FILE", path), ("APP__BROKER__URL", "embedded://")]);
        let e = load(&Sources { env: both, ..Sources::default() }).unwrap_err().to_string();
        assert!(e.contains("both set"), "{e}");
        let gone = env(&[("APP__BROKER__URL_FILE", "/nonexistent/secret")]);
        let e = load(&Sources { env: gone, ..Sources::default() }).unwrap_err().to_string();
        assert!(e.starts_with("cannot read the file that environment variable APP__BROKER__URL_FILE names"), "{e}");
    }

    #[test]
    fn queues_have_sections_of_their_own() {
        let c =
            from_file("[jobs]\ndepth_limit = 7\n[queues.heavy]\ndepth_limit = 3\n[queues.\"a.b\"]\ndepth_limit = 0\n");
        let c = c.unwrap();
        let limit = |name: &str| c.depth_limit(&name.parse().unwrap());
        assert_eq!((limit("heavy"), limit("a.b"), limit("other")), (Some(3), None, Some(7)));
        let e = env(&[("APP__QUEUES__HEAVY__DEPTH_LIMIT", "9")]);
        let c = load(&Sources { env: e, ..Sources::default() }).unwrap();
        assert_eq!(c.depth_limit(&"heavy".parse().unwrap()), Some(9));
    }

    #[test]
    fn typing_mistakes_get_the_nearest_key() {
        let cases = [
            ("[http]\nbnd = \"x\"", "unknown key `http.bnd` in test.toml; did you mean `http.bind`?"),
            ("[htpp]\nbind = \"x\"", "unknown section `htpp` in test.toml; did you mean `http`?"),
            (
                "[http]\nconcurrency = 3",
                "unknown key `http.concurrency` in test.toml; did you mean `worker.concurrency`?",
            ),
            (
                "[auth]\nxyzzy = 3",
                "unknown key `auth.xyzzy` in test.toml; keys of `auth` are audience, client_header, issuer, jwt_keys, login_burst, login_every, mode, registration, token_ttl",
            ),
            ("[queues.a]\ndepth = 3", "unknown key `queues.a.depth` in test.toml; write `queues.<name>.depth_limit`"),
            ("http = 3", "`http` in test.toml must be a section: write [http] and its keys below"),
        ];
        for (text, sentence) in cases {
            assert_eq!(from_file(text).unwrap_err().to_string(), sentence);
        }
        let bad = env(&[("APP__WORKER__CONCURENCY", "3")]);
        assert_eq!(
            load(&Sources { env: bad, ..Sources::default() }).unwrap_err().to_string(),
            "unknown key `worker.concurency` in environment variable APP__WORKER__CONCURENCY; did you mean \
             `worker.concurrency`?"
        );
        let bad = env(&[("APP__BIND", "3")]);
        let e = load(&Sources { env: bad, ..Sources::default() }).unwrap_err().to_string();
        assert!(e.starts_with("unknown key `bind` in environment variable APP__BIND"), "{e}");
    }

    #[test]
    fn wrong_types_and_values_name_layer_key_and_remedy() {
        let cases = [
            ("[http]\nworkers = 2.7", "`http.workers` in test.toml is 2.7, but must be a whole number without quotes"),
            ("[http]\nworkers = -1", "`http.workers` in test.toml is -1, but must be a number from 0 to 1024"),
            ("[worker]\nqueues = [3]", "is a list, but must be a list of texts"),
            ("[http]\nmax_body = 5", "must be text in quotes, with a unit"),
            ("[http]\nmax_bodies = \"16MiB\"", "but must be at least `http.max_bulk_body`, which is 32MiB"),
            ("[http]\nhosts = [\"https://a.example\"]", "must hold host names such as \"app.example.com\""),
            ("[http]\nhosts = [\"a.example:80\"]", "without scheme and port"),
            ("[jobs]\nlease = \"9s\"", "`jobs.lease` in test.toml is 9s, but must be at least three times"),
            ("[jobs]\nlease = \"15\"", "`jobs.lease` in test.toml is \"15\", but a time needs a unit, such as \"15s\""),
            ("[jobs]\nbulk_max = 10001", "must be a number from 1 to 10000"),
            ("[auth]\nmode = \"closed\"", "is \"closed\", but must be \"loopback\" or \"open\" or \"required\""),
            ("[http", "test.toml is not TOML: TOML parse error at line 1"),
            ("[queues.\"A B\"]\ndepth_limit = 1", "is no queue name: it must be 1 to 64 characters"),
        ];
        for (text, part) in cases {
            let e = from_file(text).unwrap_err().to_string();
            assert!(e.contains(part), "{text}: {e}");
            assert!(!e.contains('\n'), "{e}");
        }
        let hosts = from_file("[http]\nhosts = [\"A.example.\", \"[::1]\"]").unwrap().http.hosts;
        assert_eq!(hosts, ["a.example", "::1"]);
        assert!(error_of_flag("worker.strict", "maybe").contains("must be true or false"));
        assert!(error_of_flag("http.bind", "example.org:80").contains("must be an IP address and a port"));
        let e = error_of_flag("store.url", "user:secret@host");
        assert!(e.contains("is not a URL") && !e.contains("secret"), "{e}");
        let gone = Sources { profile: Some("gone".to_owned()), ..Sources::default() };
        assert!(load(&gone).unwrap_err().to_string().contains("config/gone.toml"));
        let odd = Sources { profile: Some("../x".to_owned()), ..Sources::default() };
        assert!(load(&odd).unwrap_err().to_string().contains("is not a name"));
    }

    #[test]
    fn keys_of_tokens_are_read_and_never_told() {
        let (one, two) = ("s3cr3t-".repeat(5), "other3-".repeat(5));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("b:{two},a:{one}\n")).unwrap();
        let path = env(&[("APP__AUTH__JWT_KEYS_FILE", file.path().to_str().unwrap())]);
        let c = load(&Sources { env: path, ..Sources::default() }).unwrap();
        let kids: Vec<_> = c.auth.jwt_keys.iter().map(|key| key.kid.as_str()).collect();
        assert_eq!((kids, c.auth.jwt_keys[1].secret.reveal()), (vec!["b", "a"], one.as_str()));
        let shown = format!("{c:?} {}", crate::config::show::toml(&c).unwrap());
        assert!(shown.contains("jwt_keys = [\"b:***\", \"a:***\"]") && !shown.contains("s3cr3t"), "{shown}");
        for (bad, part) in [
            ("s3cr3t".to_owned(), "must hold entries such as `NAME:SECRET`"),
            ("a:s3cr3t".to_owned(), "an entry `a` whose secret is shorter than 32 bytes"),
            (format!("s3cr3t key:{one}"), "whose name is not"),
            (format!("a:{one},a:{two}"), "two entries `a`"),
        ] {
            let e = error_of_flag("auth.jwt_keys", &bad);
            assert!(e.contains(part) && !e.contains("s3cr3t") && !e.contains("other3"), "{bad}: {e}");
        }
    }

    #[test]
    fn worker_queues_take_weights() {
        let c =
            load(&Sources { flags: flags(&[("worker.queues", "heavy, default:3")]), ..Sources::default() }).unwrap();
        let queues: Vec<_> = c.worker.queues.0.iter().map(|(n, w)| (n.as_str(), *w)).collect();
        assert_eq!(queues, [("heavy", 1), ("default", 3)]);
        for (bad, part) in [
            ("", "is empty"),
            ("a:0", "weight is a number from 1 to 1000"),
            ("a:1001", "from 1 to 1000"),
            ("a,a", "twice"),
            ("Ä", "names the queue"),
        ] {
            let e = error_of_flag("worker.queues", bad);
            assert!(e.contains(part), "{bad}: {e}");
        }
    }

    #[test]
    fn addresses_may_leave_out_the_port() {
        for (text, bind) in [("0.0.0.0", "0.0.0.0:8000"), ("localhost:1", "127.0.0.1:1"), ("[::1]:0", "[::1]:0")] {
            let c = load(&Sources { flags: flags(&[("http.bind", text)]), ..Sources::default() }).unwrap();
            assert_eq!(c.http.bind.to_string(), bind);
        }
    }
}
