//! The sections of the notification channels: mail, push and webhooks.
//!
//! A channel whose host or key is empty is not set up, which is no fault: it is then the caller's to say what becomes of
//! its messages. Secrets are [`Secret`]s, so that neither `config show` nor a log line can tell them.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::Serialize;

use super::units;
use crate::base::secret::Secret;

/// Notifications of every channel.
#[derive(Clone, Debug, Serialize)]
pub struct Notifications {
    /// Where recipients reach this service; empty for where it listens.
    pub public_url: String,
    /// Rules besides those made by the API, as they are written.
    pub rules: Vec<String>,
    /// Most mails in a minute; 0 for no limit.
    pub email_per_minute: u32,
    /// Most push messages in a minute; 0 for no limit.
    pub push_per_minute: u32,
    /// Most webhook calls in a minute; 0 for no limit.
    pub webhook_per_minute: u32,
}

/// Mail by SMTP.
#[derive(Clone, Debug, Serialize)]
pub struct Email {
    /// Name or address of the relay; empty if there is none.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// A file of root certificates to trust in place of the system's; empty for the system's.
    pub ca_file: PathBuf,
    /// Who logs in; empty for nobody.
    pub username: String,
    /// The password for it.
    #[serde(serialize_with = "masked")]
    pub password: Secret,
    /// The sender's address.
    pub from: String,
    /// The sender's name.
    pub from_name: String,
    /// How long one send may take.
    #[serde(serialize_with = "units::duration")]
    pub timeout: Duration,
    /// Most connections at once.
    pub max_connections: usize,
    /// The domain that signs; empty for no signature.
    pub dkim_domain: String,
    /// Which of its keys.
    pub dkim_selector: String,
    /// The key, in PEM.
    #[serde(serialize_with = "masked")]
    pub dkim_private_key: Secret,
}

/// How a connection to the mail relay is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// By STARTTLS, and no mail is sent without it.
    Starttls,
    /// From the first byte.
    Implicit,
}

/// Push messages to devices and browsers.
#[derive(Clone, Debug, Serialize)]
pub struct Push {
    /// The JSON file of a Firebase service account; empty for no Firebase.
    pub fcm_credentials: PathBuf,
    /// Where Firebase takes messages.
    pub fcm_url: String,
    /// Where Firebase's access tokens come from; empty for what the credentials say.
    pub fcm_token_url: String,
    /// The private key that browsers' push services know this installation by; empty for no web push.
    #[serde(serialize_with = "masked")]
    pub vapid_private_key: Secret,
    /// Whom a push service can turn to.
    pub vapid_subject: String,
    /// How long a push service keeps a message for a browser that is away.
    #[serde(serialize_with = "units::duration")]
    pub ttl: Duration,
    /// How long one send may take.
    #[serde(serialize_with = "units::duration")]
    pub timeout: Duration,
}

/// Calls to URLs that users chose: webhooks, and browsers' push services.
#[derive(Clone, Debug, Serialize)]
pub struct Webhook {
    /// Whether `http://` is taken, too.
    pub allow_http: bool,
    /// Whether any address is called, be it of this host or of its network.
    pub allow_private: bool,
    /// Networks that are called although they are not public.
    pub allow_networks: Vec<Network>,
    /// How long one call may take.
    #[serde(serialize_with = "units::duration")]
    pub timeout: Duration,
}

/// A range of addresses, such as `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `ip` is one of them. An IPv4 address written as IPv6 is still that IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                base.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits.parse::<u8>().map_err(drop)?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(drop)?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most { Err(()) } else { Ok(Self { base, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

fn masked<S: serde::Serializer>(secret: &Secret, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(if secret.is_empty() { "" } else { super::show::MASK })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_knows_its_addresses() {
        let has = |net: &str, ip: &str| net.parse::<Network>().unwrap().contains(ip.parse().unwrap());
        assert!(has("10.1.0.0/16", "10.1.255.3") && !has("10.1.0.0/16", "10.2.0.0"));
        assert!(has("0.0.0.0/0", "8.8.8.8") && !has("0.0.0.0/0", "::1"));
        assert!(has("fd00::/8", "fdab::1") && !has("fd00::/8", "fe80::1") && has("::/0", "::1"));
        assert!(has("10.0.0.7", "10.0.0.7") && !has("10.0.0.7", "10.0.0.8"));
        assert!(has("10.0.0.0/8", "::ffff:10.0.0.1"), "a mapped address is the address");
        for bad in ["", "10.0.0.0/33", "::/129", "ten/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
