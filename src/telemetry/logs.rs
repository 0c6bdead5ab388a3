//! Logs: one line for each event on stderr, JSON for machines or pretty for people.
//!
//! stderr, so that what a command prints can be piped on by itself.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// Starts logging for the whole process. A second call keeps the first one's settings, so that tests can run the
/// program several times in one process.
///
/// # Errors
/// A sentence, if `log.level` is not a filter.
pub fn init(log: &Log) -> Result<(), String> {
    let filter = filter(&log.level)?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = if is_json(log.format, std::io::stderr().is_terminal()) {
        registry.with(json_layer(std::io::stderr)).try_init()
    } else {
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours)).try_init()
    };
    match started {
        Ok(()) => log_panics(),
        Err(e) => tracing::debug!(error = %e, "logging was already started"),
    }
    Ok(())
}

/// A panic is a log line like any other: the default hook would write raw text, with whatever bytes the message holds,
/// between the JSON lines.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let at = panic.location().map(ToString::to_string);
        tracing::error!(panic = text.unwrap_or("no message"), at, "a thread panicked");
    }));
}

/// Checks a value of `log.level` without starting anything.
///
/// # Errors
/// As [`init`].
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(|_| ())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let wrong = |part: &str, why: &str| {
        format!(
            "`log.level` is \"{level}\", but {why}`{part}` is not a level; write one of {}, or a filter such as \
             \"info,app::worker=debug\"",
            LEVELS.join(", ")
        )
    };
    if level.trim().is_empty() {
        return Err(wrong("", "the empty text "));
    }
    // A bare word that is no level would name a module and switch everything else off: a silent typing mistake.
    let bare = |part: &&str| !part.contains(['=', '[', ':']) && !LEVELS.contains(&part.to_lowercase().as_str());
    if let Some(part) = level.split(',').map(str::trim).find(bare) {
        return Err(wrong(part, ""));
    }
    // The server library announces its own life at info; its warnings matter, the rest repeats what we say ourselves. So does
    // all that RabbitMQ's library says, three errors for each connection that a server which is away refuses.
    let mut quiet = level.to_owned();
    for (library, most) in [("actix", "actix_server=warn"), ("lapin", "lapin=off")] {
        if !level.contains(library) {
            quiet = format!("{most},{quiet}");
        }
    }
    EnvFilter::builder().parse(quiet).map_err(|e| format!("`log.level` is \"{level}\", which is not a filter ({e})"))
}

const fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !terminal,
    }
}

fn json_layer<S, W>(writer: W) -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    // The event's own fields stand at the top, beside `timestamp`, `level` and `target`; those of the innermost span
    // (request or job) in `span`.
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::base::clock::Timestamp;

    #[test]
    fn filters_are_checked() {
        for good in ["info", "WARN", "off", "info,app::worker=debug", "app=trace", "app[job]=debug"] {
            check(good).unwrap();
        }
        for bad in ["inof", "", "info,wrn", "app=loud", "info,"] {
            let e = check(bad).unwrap_err();
            assert!(e.starts_with("`log.level` is"), "{e}");
        }
    }

    #[test]
    fn auto_is_pretty_on_a_terminal_only() {
        assert!(is_json(LogFormat::Auto, false) && !is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Json, true) && !is_json(LogFormat::Pretty, false));
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_one_flat_object_with_an_rfc_3339_time() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("job", job_id = "j1").entered();
            tracing::info!(attempt = 2, note = "two\nlines", "job started");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "job started");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["span"]["job_id"], "j1");
        Timestamp::parse(line["timestamp"].as_str().unwrap()).unwrap();
    }
}
