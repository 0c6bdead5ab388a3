//! Keeps web pages of others from using a browser against this server.
//!
//! A browser on the same machine or in the same network reaches the server on behalf of whatever page
//! it shows. Two checks hold such pages off, and neither needs a token or a state:
//!
//! - A request that may change something and that a page of another origin sent is refused, told by
//!   `Sec-Fetch-Site` (Fetch Metadata Request Headers, W3C), which scripts cannot set, or else by `Origin`.
//!   Programs send neither header and are not affected.
//! - Without authentication, on loopback, a request that names the server by a foreign `Host` is
//!   refused: that is how a page gets in whose own name was made to resolve to 127.0.0.1.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::http::{
    Method,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use crate::http::problem::{Problem, ProblemType};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Most bytes of a foreign name that a refusal quotes.
const QUOTED_MAX: usize = 100;

/// By which names browsers may reach the server.
#[derive(Clone, Debug, Default)]
pub struct OriginRules {
    /// Whether only loopback names and `hosts` may stand in `Host`.
    pub own_hosts_only: bool,
    /// Further host names of this server and of pages that may call it; lower case, without a port.
    pub hosts: Vec<String>,
}

impl OriginRules {
    /// Returns why a request is refused, if it is. Costs a request of a program one or two look-ups of headers.
    pub(crate) fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<Problem> {
        if self.own_hosts_only
            && let Some(foreign) = headers.get_all(header::HOST).find(|host| !self.is_own(host))
        {
            return Some(foreign_host(foreign));
        }
        let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_safe || !self.is_cross_site(headers) {
            return None;
        }
        Some(Problem::new(
            ProblemType::Forbidden,
            "the request comes from a page of another site, and such pages may not change anything here; \
             if the page is your own, add its host to `http.hosts`",
        ))
    }

    /// Whether a browser says that a page of another origin sent this.
    fn is_cross_site(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN);
        if origin.is_some_and(|origin| self.is_listed(origin)) {
            return false;
        }
        match (headers.get(SEC_FETCH_SITE), origin) {
            (Some(site), _) => !matches!(site.as_bytes(), b"same-origin" | b"none"),
            (None, Some(origin)) => !is_same(origin, headers.get(header::HOST)),
            (None, None) => false,
        }
    }

    /// Whether this `Host` names the loopback interface or is listed. Names are compared whole.
    fn is_own(&self, host: &HeaderValue) -> bool {
        let Some(name) = host.to_str().ok().and_then(without_port) else { return false };
        name.eq_ignore_ascii_case("localhost") || is_loopback(name) || self.lists(name)
    }

    fn is_listed(&self, origin: &HeaderValue) -> bool {
        !self.hosts.is_empty()
            && origin.to_str().ok().and_then(authority).and_then(without_port).is_some_and(|name| self.lists(name))
    }

    fn lists(&self, name: &str) -> bool {
        // A name may be written with the root's dot; the setting is kept without.
        let name = name.strip_suffix('.').unwrap_or(name);
        self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }
}

/// Whether an `Origin` is the one that `Host` names. The scheme is not known behind a proxy that ends
/// TLS, so a `Host` without a port stands for the default port of either.
fn is_same(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), host.map(HeaderValue::to_str)) else { return false };
    let default_port = if origin.starts_with("https://") { ":443" } else { ":80" };
    let bare = |authority: &'_ str| authority.strip_suffix(default_port).unwrap_or(authority).to_ascii_lowercase();
    authority(origin).is_some_and(|authority| bare(authority) == bare(host))
}

/// The host and port of an origin; none for the opaque origin `null`.
fn authority(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| authority)
}

/// The host of `host[:port]`, an IPv6 address without its brackets. None if the port is no number.
fn without_port(authority: &str) -> Option<&str> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    port.bytes().all(|b| b.is_ascii_digit()).then_some(host)
}

fn is_loopback(name: &str) -> bool {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address == IpAddr::V6(Ipv6Addr::LOCALHOST),
        Err(_) => false,
    }
}

fn foreign_host(host: &HeaderValue) -> Problem {
    let name: String = String::from_utf8_lossy(host.as_bytes()).chars().take(QUOTED_MAX).collect();
    Problem::new(
        ProblemType::Forbidden,
        format!(
            "`{name}` is not a name of this server: without authentication it is reached as localhost or by a \
             loopback address only, so that no web page can reach it by a name of its own; add the name to `http.hosts`, \
             or set `auth.mode = \"required\"`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn passes(rules: &OriginRules, method: &Method, pairs: &[(&'static str, &str)]) -> bool {
        rules.refusal(method, &headers(pairs)).is_none()
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let rules = OriginRules::default();
        let host = ("host", "app.example:8000");
        for (pairs, wanted) in [
            (vec![host], true),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
            (vec![host, ("sec-fetch-site", "none")], true),
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "null")], true),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "same-site")], false),
            (vec![host, ("sec-fetch-site", "same-site"), ("origin", "http://app.example:8000")], false),
            (vec![host, ("sec-fetch-site", "")], false),
            (vec![host, ("origin", "http://app.example:8000")], true),
            (vec![host, ("origin", "http://APP.example:8000")], true),
            (vec![host, ("origin", "http://app.example:8001")], false),
            (vec![host, ("origin", "http://app.example")], false),
            (vec![host, ("origin", "http://evil.example")], false),
            (vec![host, ("origin", "http://app.example:8000.evil.example")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "")], false),
            (vec![("origin", "http://app.example:8000")], false),
            (vec![("host", "app.example"), ("origin", "https://app.example")], true),
            (vec![("host", "app.example:443"), ("origin", "https://app.example")], true),
            (vec![("host", "app.example"), ("origin", "https://app.example:8443")], false),
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(passes(&rules, &method, &pairs), wanted, "{method} {pairs:?}");
            }
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert!(passes(&rules, &method, &pairs), "{method} {pairs:?}");
            }
        }
    }

    #[test]
    fn a_listed_host_may_call_from_its_pages() {
        let rules = OriginRules { own_hosts_only: true, hosts: vec!["front.example".to_owned()] };
        let of = |site: &str, origin: &str| {
            let pairs = [("host", "localhost"), ("sec-fetch-site", site), ("origin", origin)];
            passes(&rules, &Method::POST, &pairs)
        };
        assert!(of("cross-site", "https://front.example"));
        assert!(of("same-site", "http://FRONT.example:3000"));
        assert!(!of("cross-site", "https://front.example.evil.example"));
        assert!(!of("cross-site", "https://other.example"));
        assert!(passes(&rules, &Method::POST, &[("host", "front.example:8000")]));
        assert!(passes(&rules, &Method::POST, &[("host", "front.example.:8000")]));
    }

    #[test]
    fn without_authentication_only_own_names_are_answered() {
        let rules = OriginRules { own_hosts_only: true, hosts: Vec::new() };
        for own in ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "[::1]"] {
            assert!(passes(&rules, &Method::GET, &[("host", own)]), "{own}");
        }
        assert!(passes(&rules, &Method::GET, &[]), "a program of HTTP/1.0 names no host, a browser always does");
        for foreign in [
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.0.2.1",
            "0.0.0.0",
            "[2001:db8::1]",
            "127.0.0.1:8000.evil.example",
            "localhost@evil.example",
            "",
            "[::1",
            "\u{fc}",
        ] {
            for method in [Method::GET, Method::POST] {
                assert!(!passes(&rules, &method, &[("host", foreign)]), "{foreign}");
            }
        }
        assert!(!passes(&rules, &Method::GET, &[("host", "localhost"), ("host", "evil.example")]), "any of several");
        let open = OriginRules::default();
        assert!(passes(&open, &Method::GET, &[("host", "anything.example")]), "elsewhere no name is asked for");
    }
}
