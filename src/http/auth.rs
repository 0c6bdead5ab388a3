//! Who calls: reads tokens and keys from a request and asks the users room what they prove.
//!
//! The guard stands before every path and knows what each method needs. A handler that is reached may take the [`Caller`]
//! as a parameter, for questions that depend on whose data it is.

use std::{
    future::{Future, Ready, ready},
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest,
    body::BoxBody,
    dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform, forward_ready},
    http::{
        Method,
        header::{self, HeaderMap, HeaderName},
    },
    web::Data,
};
use futures_util::future::LocalBoxFuture;

use crate::{
    base::id::UserId,
    http::{
        HttpState,
        problem::{Problem, ProblemType},
    },
    jobs::authority::Authority,
    users::{Caller, Need, Proof, Refusal, Right, Scope, UserError},
};

/// In which programs may send their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Who may call.
#[derive(Clone, Debug, Default)]
pub struct AuthRules {
    /// Whether callers must say who they are.
    pub required: bool,
    /// The header in which a proxy tells the client's address; none if clients connect directly.
    pub client_header: Option<HeaderName>,
}

/// Lets nobody through to a path's handlers who may not.
pub(crate) struct Guard(Rc<[(Method, Need)]>);

impl Guard {
    /// A guard over what these methods need. Any other method is not served and needs nothing.
    pub(crate) fn new(needs: Vec<(Method, Need)>) -> Self {
        Self(needs.into())
    }
}

impl<S> Transform<S, ServiceRequest> for Guard
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
    S::Future: Unpin,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Transform = Guarded<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Guarded { service: Rc::new(service), needs: Rc::clone(&self.0) }))
    }
}

/// [`Guard`] before one path.
pub(crate) struct Guarded<S> {
    service: Rc<S>,
    needs: Rc<[(Method, Need)]>,
}

impl<S> Service<ServiceRequest> for Guarded<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<BoxBody>, Error = Error> + 'static,
    S::Future: Unpin,
{
    type Response = ServiceResponse<BoxBody>;
    type Error = Error;
    type Future = Passing<S::Future>;

    forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let need = self.needs.iter().find(|(method, _)| method == req.method()).map_or(Need::Open, |(_, need)| *need);
        // `HttpState` is always there: `http::app` puts it in. Without it nobody would get through.
        let free = req.app_data::<Data<HttpState>>().is_some_and(|state| !state.auth.required);
        if free || need == Need::Open {
            return Passing::Free(self.service.call(req));
        }
        let service = Rc::clone(&self.service);
        Passing::Checked(Box::pin(async move {
            match admit(req.request(), need).await {
                Ok(caller) => {
                    req.extensions_mut().insert(caller);
                    service.call(req).await
                }
                Err(problem) => Ok(req.error_response(problem)),
            }
        }))
    }
}

/// A request on its way through a guard.
pub(crate) enum Passing<F> {
    /// Nobody has to be asked.
    Free(F),
    /// Somebody has.
    Checked(LocalBoxFuture<'static, Result<ServiceResponse<BoxBody>, Error>>),
}

impl<F> Future for Passing<F>
where
    F: Future<Output = Result<ServiceResponse<BoxBody>, Error>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Free(answer) => Pin::new(answer).poll(cx),
            Self::Checked(answer) => answer.as_mut().poll(cx),
        }
    }
}

async fn admit(req: &HttpRequest, need: Need) -> Result<Caller, Problem> {
    let state = req.app_data::<Data<HttpState>>().ok_or_else(unknown)?;
    let caller = state.users.authenticate(proof(req.headers())).await?;
    match caller.meets(need) {
        true => Ok(caller),
        false => Err(Problem::new(ProblemType::Forbidden, lacking(need))),
    }
}

/// Says what is missing, in the words of scopes.
fn lacking(need: Need) -> String {
    let scopes = Scope::ALL.iter().skip(1).filter(|s| matches!(need, Need::Of(right) if s.grants(right)));
    let names: Vec<String> =
        scopes.filter_map(|s| serde_json::to_value(s).ok()?.as_str().map(|name| format!("`{name}`"))).collect();
    format!("this needs an administrator, or an API key with the scope {}", names.join(" or "))
}

fn unknown() -> Problem {
    UserError::Unauthorized(Refusal::Missing).into()
}

/// What a request shows. A header that cannot be read is a wrong proof, and not none.
pub(crate) fn proof(headers: &HeaderMap) -> Proof<'_> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        return Proof::Bearer(if scheme.eq_ignore_ascii_case("bearer") { rest.trim() } else { "" });
    }
    match headers.get(API_KEY) {
        Some(value) => Proof::Key(value.to_str().unwrap_or_default()),
        None => Proof::Nothing,
    }
}

/// Who sent this request, as the guard found out.
pub(crate) fn caller(req: &HttpRequest) -> Result<Caller, Problem> {
    if let Some(caller) = req.extensions().get::<Caller>() {
        return Ok(caller.clone());
    }
    match req.app_data::<Data<HttpState>>() {
        Some(state) if !state.auth.required => Ok(Caller::Anyone),
        _ => Err(unknown()),
    }
}

/// What the sender of this request may do with kinds of job that ask for more than their route.
pub(crate) fn authority(req: &HttpRequest) -> Authority {
    if let Some(caller) = req.extensions().get::<Caller>() {
        return authority_of(caller);
    }
    match req.app_data::<Data<HttpState>>() {
        Some(state) if !state.auth.required => authority_of(&Caller::Anyone),
        _ => Authority::default(),
    }
}

/// What a caller may do with kinds of job that ask for more than their route.
pub(crate) fn authority_of(caller: &Caller) -> Authority {
    Authority {
        control_queues: caller.may(Right::QueuesControl),
        read_notifications: caller.may(Right::NotificationsRead),
        write_notifications: caller.may(Right::NotificationsWrite),
        submit_internal: false,
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(caller(req))
    }
}

/// Lets a caller through to what is `owner`'s: its own, or anybody's with `right`. For everybody else it does not exist.
///
/// # Errors
/// 404, as for a user that is not there.
pub(crate) fn reach(caller: &Caller, owner: UserId, right: Right) -> Result<(), Problem> {
    match caller.may_with(owner, right) {
        true => Ok(()),
        false => Err(Problem::not_found("id", format!("there is no user {owner}"))),
    }
}

/// Lets a caller through to what needs `right` besides what its path needs.
///
/// # Errors
/// 403.
pub(crate) fn demand(caller: &Caller, right: Right, what: &str) -> Result<(), Problem> {
    match caller.may(right) {
        true => Ok(()),
        false => Err(Problem::new(ProblemType::Forbidden, format!("only administrators may {what}"))),
    }
}

/// Where a request comes from, for counting attempts: an address, or the network that one customer has of IPv6.
pub(crate) struct Client(pub(crate) String);

impl FromRequest for Client {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let header = req.app_data::<Data<HttpState>>().and_then(|state| state.auth.client_header.clone());
        let told = header.and_then(|name| {
            // Of several the last: what stands before it is what the proxy was told.
            let text = req.headers().get_all(name).last()?.to_str().ok()?;
            text.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
        });
        let address = told.or_else(|| req.peer_addr().map(|peer| peer.ip()));
        ready(Ok(Self(address.map_or_else(|| "unknown".to_owned(), network))))
    }
}

fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn tokens_and_keys_are_found_where_they_may_stand() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            format!("{:?}", proof(&headers))
        };
        assert_eq!(of(&[]), "Nothing");
        assert_eq!(of(&[("authorization", "Bearer abc")]), r#"Bearer("abc")"#);
        assert_eq!(of(&[("authorization", "bEARER  abc ")]), r#"Bearer("abc")"#);
        assert_eq!(of(&[("x-api-key", "app_1")]), r#"Key("app_1")"#);
        assert_eq!(of(&[("x-api-key", "app_1"), ("authorization", "Bearer abc")]), r#"Bearer("abc")"#);
        for bad in ["Basic dTpw", "Bearer", "", "Bearer \u{fc}"] {
            assert_eq!(of(&[("authorization", bad)]), r#"Bearer("")"#, "{bad}");
        }
    }

    #[test]
    fn clients_are_told_apart_by_address_or_network() {
        for (address, shown) in
            [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
        {
            assert_eq!(network(address.parse().unwrap()), shown);
        }
    }
}
