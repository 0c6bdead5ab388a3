//! Whether a server lets this program in, is new enough, and takes messages.

use std::time::Duration;

use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::link::{ACCESS_REFUSED, Link, code};
use crate::base::probe::Unfit;

/// The oldest version this program is tested with.
const OLDEST: (u32, u32) = (3, 10);
/// A server with an alarm does not confirm within this time.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(500);
/// Answers to a connection that is not let in: credentials or vhost.
const REFUSALS: [u16; 3] = [402, ACCESS_REFUSED, 530];

pub(super) async fn inspect(uri: &AMQPUri) -> Result<Vec<String>, Unfit> {
    let link = Link::new(uri.clone(), "looks");
    let connection = link.open().await.map_err(|e| match code(&e) {
        Some(c) if REFUSALS.contains(&c) => Unfit::Refused(format!(
            "RabbitMQ refuses user `{}` on vhost `{}`: {e}; check both, and the password, in `broker.url`",
            uri.authority.userinfo.username, uri.vhost
        )),
        _ => Unfit::Unavailable(format!("RabbitMQ does not answer: {e}")),
    })?;
    let mut warnings = Vec::new();
    let unfit = |e: lapin::Error| Unfit::Unavailable(format!("RabbitMQ does not answer: {e}"));
    // To a name that no queue has: it is dropped, but a server with an alarm blocks whoever publishes anything.
    let channel = connection.create_channel().await.map_err(unfit)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(unfit)?;
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let sent = channel.basic_publish("".into(), "app.probe.nowhere".into(), options, b"", properties);
    let confirmed = async { sent.await?.await };
    match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
        Err(_elapsed) if connection.status().blocked() => warnings
            .push("RabbitMQ takes no messages for now: it is short of memory or disk space; see its alarms".to_owned()),
        Ok(Err(e)) if code(&e) == Some(ACCESS_REFUSED) => warnings.push(format!(
            "RabbitMQ does not let user `{}` publish ({e}); give it the right to write to `amq.default`, as README \
             lists",
            uri.authority.userinfo.username
        )),
        _ => {}
    }
    warnings.extend(version(uri).await.and_then(|version| judge(&version)));
    if let Err(e) = connection.close(200, "seen".into()).await {
        tracing::debug!(error = %e, "a connection did not close");
    }
    Ok(warnings)
}

/// The server tells its version to whoever knocks, before anything is asked; the client library keeps it to itself. Not
/// over TLS.
async fn version(uri: &AMQPUri) -> Option<String> {
    if uri.scheme != AMQPScheme::AMQP {
        return None;
    }
    let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await.ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    // Frame: type, channel (2), length (4), then the method `connection.start` with the server's properties.
    let mut header = [0; 7];
    stream.read_exact(&mut header).await.ok()?;
    let [.., a, b, c, d] = header;
    let mut frame = vec![0; u32::from_be_bytes([a, b, c, d]).min(65_536) as usize];
    stream.read_exact(&mut frame).await.ok()?;
    find_version(&frame)
}

/// In a field table: length of the name, name, `S`, length of the text (4), text.
fn find_version(frame: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\x07versionS";
    let at = frame.windows(NAME.len()).position(|w| w == NAME)?;
    let (length, rest) = frame.get(at + NAME.len()..)?.split_first_chunk::<4>()?;
    let text = rest.get(..u32::from_be_bytes(*length) as usize)?;
    String::from_utf8(text.to_vec()).ok()
}

fn judge(version: &str) -> Option<String> {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return None };
    ((major, minor) < OLDEST).then(|| {
        let (a, b) = OLDEST;
        format!("this RabbitMQ is version {version}, but {a}.{b} is the oldest that this program is tested with")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_and_judged() {
        let frame = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x18\x07versionS\x00\x00\x00\x063.10.8rest";
        assert_eq!(find_version(frame).as_deref(), Some("3.10.8"));
        assert_eq!(find_version(b"\x07versionS\x00\x00\xff\xff3"), None);
        assert_eq!(find_version(b""), None);
        for (version, old) in [("3.9.29", true), ("3.10.8", false), ("4.3.0-rc.1", false), ("unknown", false)] {
            assert_eq!(judge(version).is_some(), old, "{version}");
        }
    }
}
