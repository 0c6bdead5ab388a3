//! Good answers: JSON of one thing, or of a list with its page.
//!
//! The one response style lives here: `{"data": […], "meta": {…}}` for lists, the bare object for single things.

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    base::{
        error::Kind,
        id::QueueName,
        page::{Page, PageRequest},
    },
    http::{HttpLimits, problem::Problem},
};

/// The parameters of a list without filters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// At most this many entries; 50 if not given.
    #[param(minimum = 1, maximum = 200, example = 50)]
    limit: Option<u32>,
    /// Where the page starts: `meta.next_cursor` of the page before.
    #[param(pattern = "^c1_[a-z0-9_][a-z0-9_.-]{0,63}$")]
    cursor: Option<String>,
}

/// Writes `body` as JSON.
///
/// # Errors
/// 500, if it cannot be serialised: a defect of the type.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Result<HttpResponse, Problem> {
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, body).map_err(|e| Problem::hidden(Kind::Internal, e.to_string()))?;
    Ok(json_bytes(status, bytes))
}

/// Answers with JSON that is written already.
pub(crate) fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> HttpResponse {
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    HttpResponse::build(status).insert_header(content_type).body(bytes)
}

impl Meta {
    /// A list that is shown as a whole, of `limit` entries at most.
    pub(crate) fn whole(limit: usize) -> Self {
        Self { limit, next_cursor: None, has_next: false }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The entries, in the list's order.
    pub(crate) data: Vec<T>,
    /// About the page.
    pub(crate) meta: Meta,
}

/// About a page.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PageMeta)]
pub(crate) struct Meta {
    /// The most entries this page could have.
    #[schema(minimum = 1)]
    limit: usize,
    /// Pass it as `cursor` to get the next page; null at the end.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Whether there is a next page.
    has_next: bool,
}

impl<T> List<T> {
    /// The page that answers `request`, each entry as the client sees it.
    pub(crate) fn of<D>(page: Page<D>, request: &PageRequest, shown: impl FnMut(D) -> T) -> Self {
        let next_cursor = page.next.map(|c| c.to_string());
        let meta = Meta { limit: request.limit, has_next: next_cursor.is_some(), next_cursor };
        Self { data: page.data.into_iter().map(shown).collect(), meta }
    }
}

/// Where a page of a list that is ordered by name ended: `c1_` and the last name.
const NAMED_CURSOR: &str = "c1_";

/// One page of a list that is read as a whole and shown in the order of its entries' names.
///
/// # Errors
/// 400, naming `limit` or `cursor`.
pub(crate) fn page_by_name<D, T>(
    mut all: Vec<D>,
    query: &PageParams,
    limits: &HttpLimits,
    name: impl Fn(&D) -> String,
    shown: impl FnMut(D) -> T,
) -> Result<List<T>, Problem> {
    let limit = limits.page(query.limit, None)?.limit;
    all.sort_by_cached_key(&name);
    let mut rest = match &query.cursor {
        None => all,
        Some(cursor) => {
            let after =
                cursor.strip_prefix(NAMED_CURSOR).filter(|name| QueueName::new(name).is_ok()).ok_or_else(|| {
                    let message = "is not a cursor: pass `meta.next_cursor` of the page before, unchanged";
                    Problem::invalid_field("cursor", message)
                })?;
            all.into_iter().filter(|entry| name(entry).as_str() > after).collect()
        }
    };
    let has_next = rest.len() > limit;
    rest.truncate(limit);
    let last = if has_next { rest.last() } else { None };
    let next_cursor = last.map(|entry| format!("{NAMED_CURSOR}{}", name(entry)));
    Ok(List { data: rest.into_iter().map(shown).collect(), meta: Meta { limit, next_cursor, has_next } })
}
