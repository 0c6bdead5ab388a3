//! A thin client of the HTTP API: sends a request, gives back JSON, and turns every way to fail into a sentence.

use std::{future::Future, time::Duration};

use clap::Args;
use reqwest::{
    Method, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::exit::{FAILED, Failure, REFUSED, SERVER, UNREACHABLE, USAGE};
use crate::{base::secret::Secret, config::show::mask_url};

const DEFAULT_URL: &str = "http://127.0.0.1:8000";
/// Longest page that a server gives unless it is configured otherwise.
const PAGE_MAX: usize = 200;

/// Which server to talk to, and how to print what it says.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Address of the server
    #[arg(long, global = true, env = "APP_URL", hide_env_values = true, default_value = DEFAULT_URL, value_name = "URL")]
    url: String,
    /// Print the API's JSON instead of a table
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// A token or API key, for servers that ask who one is; others on this host can see flags, so better use the variable
    #[arg(long, global = true, env = "APP_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,
}

#[allow(clippy::unnecessary_wraps, reason = "the parser of a flag may fail; this one hides what it was given")]
fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

/// A connection to one server.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// An answer that was no failure.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

/// Query parameters; those without a value are left out.
pub(super) type Query<'a> = &'a [(&'a str, Option<String>)];

/// Runs a client command on one thread: it waits for one request at a time.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(FAILED, format!("cannot start the runtime: {e}")))?;
    Ok(runtime.block_on(future))
}

impl Client {
    pub(super) fn new(server: &ServerArgs) -> Result<Self, Failure> {
        // An empty APP_URL is what a compose file passes for a variable that is not set.
        let url = if server.url.is_empty() { DEFAULT_URL } else { &server.url };
        let bad = |why: &str| {
            let url = mask_url(url);
            Failure::new(USAGE, format!("`{url}` is not a server's address: {why}; write such as {DEFAULT_URL}"))
        };
        let base: Url = url.parse().map_err(|e| bad(&format!("{e}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(bad("it must begin with http:// or https://"));
        }
        // The second call in one process is refused, and the provider is then already there.
        rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("app/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            // Longer than the longest long-poll.
            .timeout(Duration::from_secs(90));
        if base.host_str().is_some_and(is_loopback) {
            // A proxy for the outer world cannot reach this host's loopback.
            builder = builder.no_proxy();
        }
        if base.scheme() == "http" {
            // Looking for root certificates fails in an image that has none, and nothing here needs them.
            builder = builder.tls_certs_only([]);
        }
        if let Some(token) = server.token.as_ref().filter(|token| !token.is_empty()) {
            let wrong = |_| Failure::new(USAGE, "the token (--token, APP_TOKEN) is not plain ASCII");
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal())).map_err(wrong)?;
            value.set_sensitive(true);
            builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
        }
        let http = builder.build().map_err(|e| {
            Failure::new(FAILED, format!("cannot make an HTTP client for {}: {}", mask_url(url), root_cause(&e)))
        })?;
        Ok(Self { http, base })
    }

    pub(super) async fn get(&self, path: &[&str], query: Query<'_>) -> Result<Reply, Failure> {
        self.send(Method::GET, path, query, None::<&Value>, &[]).await
    }

    pub(super) async fn post(
        &self,
        path: &[&str],
        body: Option<&(impl Serialize + core::marker::Sync)>,
        headers: &[(HeaderName, String)],
    ) -> Result<Reply, Failure> {
        self.send(Method::POST, path, &[], body, headers).await
    }

    /// Follows a list from page to page until it has `limit` entries or the list ends.
    pub(super) async fn list(&self, path: &[&str], filters: Query<'_>, limit: usize) -> Result<Value, Failure> {
        let mut query = filters.to_vec();
        query.retain(|(name, _)| *name != "cursor");
        let mut cursor = filters.iter().find(|(name, _)| *name == "cursor").and_then(|(_, value)| value.clone());
        let mut data: Vec<Value> = Vec::new();
        loop {
            let page_limit = limit.saturating_sub(data.len()).min(PAGE_MAX);
            let mut page_query = query.clone();
            page_query.extend([("limit", Some(page_limit.to_string())), ("cursor", cursor.take())]);
            let mut body = self.get(path, &page_query).await?.body;
            let Some(Value::Array(page)) = body.get_mut("data").map(Value::take) else {
                return Err(self.strange("without a `data` list"));
            };
            data.extend(page);
            let meta = body.get_mut("meta").map(Value::take).unwrap_or_default();
            cursor = meta.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || data.len() >= limit {
                return Ok(json!({ "data": data, "meta": meta }));
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: Query<'_>,
        body: Option<&(impl Serialize + core::marker::Sync)>,
        headers: &[(HeaderName, String)],
    ) -> Result<Reply, Failure> {
        let mut request = self.http.request(method, self.url(path, query));
        if let Some(body) = body {
            request = request.json(body);
        }
        for (name, value) in headers {
            let wrong =
                |_| Failure::new(USAGE, format!("`{value}` cannot be sent as the header {name}; use plain ASCII"));
            request = request.header(name, HeaderValue::from_str(value).map_err(wrong)?);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.map_err(|e| self.unreachable(&e))?;
        let body = serde_json::from_str(&text);
        if !status.is_success() {
            return Err(refusal(status, &body.unwrap_or_default()));
        }
        match body {
            Ok(body) => Ok(Reply { headers, body }),
            Err(_) => Err(self.strange("that is not JSON")),
        }
    }

    fn url(&self, path: &[&str], query: Query<'_>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Kept apart, so that no name can climb out of its place in the path.
            segments.pop_if_empty().extend(path);
        }
        let given = query.iter().filter_map(|(name, value)| value.as_ref().map(|v| (*name, v)));
        if query.iter().any(|(_, value)| value.is_some()) {
            url.query_pairs_mut().extend_pairs(given);
        }
        url
    }

    fn unreachable(&self, e: &reqwest::Error) -> Failure {
        let base = mask_url(self.base.as_str());
        let base = base.trim_end_matches('/');
        if e.is_timeout() {
            let message = format!("{base} did not answer in time; is it overloaded, or is a firewall in between?");
            return Failure::new(UNREACHABLE, message);
        }
        let advice = "is `app all` or `app serve` running there? (--url or APP_URL names another server)";
        Failure::new(UNREACHABLE, format!("cannot reach {base} ({}); {advice}", root_cause(e)))
    }

    fn strange(&self, what: &str) -> Failure {
        let base = mask_url(self.base.as_str());
        Failure::new(SERVER, format!("{base} gave an answer {what}; is it a server of this program? (--url, APP_URL)"))
    }
}

/// The deepest cause: the outer ones only say that something failed.
fn root_cause(e: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
}

/// The sentence for an RFC 9457 problem document, or for whatever came in its place.
fn refusal(status: StatusCode, problem: &Value) -> Failure {
    let text = |key: &str| problem.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let what = text("detail").or_else(|| text("title")).unwrap_or("no reason given");
    let faults = problem.get("errors").and_then(Value::as_array).into_iter().flatten();
    let faults: Vec<String> = faults
        .map(|e| ["field", "message"].map(|key| e.get(key).and_then(Value::as_str).unwrap_or_default()))
        // The detail of a single fault often says it all.
        .filter(|[_, message]| !what.contains(message))
        .map(|[field, message]| format!("{field}: {message}"))
        .collect();
    let faults = if faults.is_empty() { String::new() } else { format!(" ({})", faults.join("; ")) };
    let request = text("request_id").map(|id| format!(", request id {id}")).unwrap_or_default();
    let (code, who) = match status.is_client_error() {
        true => (REFUSED, "the server refused"),
        false => (SERVER, "the server failed"),
    };
    Failure::new(code, format!("{who}: {what}{faults} (status {}{request})", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, Failure> {
        Client::new(&ServerArgs { url: url.to_owned(), json: false, token: None })
    }

    #[test]
    fn addresses_are_checked_and_names_stay_in_their_place() {
        let c = client("http://h/prefix/").unwrap();
        let url = c.url(&["api", "a/b", "x?y"], &[("tag", Some("a&b".to_owned())), ("kind", None)]);
        assert_eq!(url.as_str(), "http://h/prefix/api/a%2Fb/x%3Fy?tag=a%26b");
        assert_eq!(c.url(&["health"], &[("kind", None)]).as_str(), "http://h/prefix/health");
        assert_eq!(client("").unwrap().base.as_str(), "http://127.0.0.1:8000/");
        for bad in ["nonsense", "ftp://h", "mailto:x@y", "http://"] {
            assert_eq!(client(bad).err().map(|f| f.code), Some(USAGE), "{bad}");
        }
    }

    #[test]
    fn a_token_is_sent_and_never_shown() {
        let server = |token: &str| ServerArgs { url: String::new(), json: false, token: Some(secret(token).unwrap()) };
        assert!(Client::new(&server("")).is_ok() && !format!("{:?}", server("hunter2")).contains("hunter2"));
        let f = Client::new(&server("hunter2\n")).err().unwrap();
        assert!(f.code == USAGE && !f.message.contains("hunter2"), "{}", f.message);
    }

    #[test]
    fn problems_become_one_sentence() {
        let problem = json!({"title": "Invalid", "detail": "the request is wrong", "request_id": "r1",
            "errors": [{"field": "kind", "message": "is unknown"}]});
        let f = refusal(StatusCode::BAD_REQUEST, &problem);
        assert_eq!(f.code, REFUSED);
        assert_eq!(
            f.message,
            "the server refused: the request is wrong (kind: is unknown) (status 400, request id r1)"
        );
        let f = refusal(StatusCode::BAD_GATEWAY, &Value::Null);
        assert_eq!((f.code, f.message.as_str()), (SERVER, "the server failed: no reason given (status 502)"));
    }

    #[test]
    fn a_server_that_is_not_there_is_told_apart() {
        // Port 1 is never listened on here.
        let c = client("http://127.0.0.1:1").unwrap();
        let f = block_on(c.get(&["health"], &[])).unwrap().err().unwrap();
        assert_eq!(f.code, UNREACHABLE);
        assert!(f.message.contains("http://127.0.0.1:1 (") && f.message.contains("`app all`"), "{}", f.message);
    }
}
