//! The guard before URLs that users chose: what may be called, and at which addresses.
//!
//! A user who can name any URL can make this host call what only this host can reach: its own ports, its network, its cloud's
//! metadata. A look at the name beforehand does not help, as a name can mean another address a moment later. So names are
//! resolved by the guard itself, at the moment of connecting, and only public addresses come out. Proxies of the environment
//! are not used, or they would resolve the name where no guard stands; redirects are not followed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::{Fault, SendError};
use crate::config;

/// What a caller is told whose URL leads to a private address.
const PRIVATE: &str =
    "the URL leads to an address that is not public; webhook.allow_networks or webhook.allow_private let it";

/// Which URLs and addresses may be called.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Whether `http://` is taken, too.
    pub allow_http: bool,
    /// Whether any address is.
    pub allow_private: bool,
    /// Networks that are taken although they are not public.
    pub allow_networks: Vec<config::Network>,
}

impl Guard {
    /// The guard that the configuration asks for.
    #[must_use]
    pub fn new(c: &config::Webhook) -> Self {
        Self { allow_http: c.allow_http, allow_private: c.allow_private, allow_networks: c.allow_networks.clone() }
    }

    /// Judges what can be judged before connecting. Also for the moment at which a user enters a URL.
    ///
    /// # Errors
    /// The recipient's fault, as no later attempt can do better.
    pub fn check(&self, text: &str) -> Result<Url, SendError> {
        let wrong = |code: &str, why: &str| SendError::new(Fault::Recipient { suppress: false }, code, why);
        // The URL is not repeated: its path or query may be all that protects the endpoint.
        let url = Url::parse(text).map_err(|e| wrong("bad_url", &format!("the URL cannot be read: {e}")))?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => {
                return Err(wrong(
                    "insecure_url",
                    "the URL must begin with https://, unless webhook.allow_http is set",
                ));
            }
            _ => return Err(wrong("bad_url", "the URL must begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("bad_url", "the URL must not hold a user name or password"));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            Some(Host::Domain(_)) => None,
            None => return Err(wrong("bad_url", "the URL names no host")),
        };
        match literal {
            Some(ip) if !self.allows(ip) => Err(private_address()),
            _ => Ok(url),
        }
    }

    fn allows(&self, ip: IpAddr) -> bool {
        self.allow_private || self.allow_networks.iter().any(|n| n.contains(ip)) || is_public(ip)
    }
}

pub(super) fn private_address() -> SendError {
    SendError::new(Fault::Recipient { suppress: false }, "private_address", PRIVATE)
}

/// All addresses of a name are refused.
#[derive(Debug, thiserror::Error)]
#[error("{PRIVATE}")]
pub(super) struct PrivateAddress;

/// Resolves names for the HTTP client, and leaves out what the guard refuses.
pub(super) struct Resolver(pub(super) Arc<Guard>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> = found.iter().copied().filter(|a| guard.allows(a.ip())).collect();
            match allowed.is_empty() && !found.is_empty() {
                true => Err(PrivateAddress.into()),
                false => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address belongs to the public internet, by IANA's registries of special addresses.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        // This network, private, this host, link-local with the cloud's metadata.
        [0 | 10 | 127, ..] | [169, 254, ..] | [172, 16..=31, ..] | [192, 168, ..] => true,
        // Carrier-grade NAT, protocol assignments, documentation, the 6to4 relays, benchmarks.
        [100, 64..=127, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => true,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    match ip.segments() {
        // NAT64: where only IPv6 is spoken, the public IPv4 world has these addresses, and the private one, too.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        // Protocol assignments with Teredo, documentation, 6to4: tunnels that may end anywhere.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // The rest of what is given out; all else is loopback, link-local, unique local, multicast or nobody's.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for ip in
            ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
        {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_url_is_judged_before_it_is_called() {
        let strict = Guard::default();
        for url in
            ["https://example.org/hook?x=1", "https://example.org:8443", "https://8.8.8.8/", "https://[2606:4700::1]/"]
        {
            strict.check(url).unwrap();
        }
        for (url, code) in [
            ("http://example.org", "insecure_url"),
            ("ftp://example.org", "bad_url"),
            ("example.org", "bad_url"),
            ("https://", "bad_url"),
            ("https://user@example.org", "bad_url"),
            ("https://:pass@example.org", "bad_url"),
            ("https://127.0.0.1/", "private_address"),
            ("https://2130706433/", "private_address"),
            ("https://0x7f.1/", "private_address"),
            ("https://0177.0.0.1/", "private_address"),
            ("https://127.1/", "private_address"),
            ("https://[::1]/", "private_address"),
            ("https://[::ffff:10.0.0.1]/", "private_address"),
            ("https://169.254.169.254/latest/meta-data", "private_address"),
        ] {
            let e = strict.check(url).unwrap_err();
            assert_eq!((e.fault, e.code.as_str()), (Fault::Recipient { suppress: false }, code), "{url}");
            assert!(!e.message.contains("pass@") && !e.message.contains("meta-data"), "{e}");
        }
        let open = Guard { allow_http: true, allow_private: true, ..Guard::default() };
        open.check("http://127.0.0.1:1/").unwrap();
        let listed = Guard { allow_networks: vec!["10.1.0.0/16".parse().unwrap()], ..Guard::default() };
        listed.check("https://10.1.2.3/").unwrap();
        listed.check("https://[::ffff:10.1.2.3]/").unwrap();
        assert_eq!(listed.check("https://10.2.2.3/").unwrap_err().code, "private_address");
    }
}
