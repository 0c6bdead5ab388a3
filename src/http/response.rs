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
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    base::{
        error::Kind,
        page::{Page, PageRequest},
    },
    http::problem::Problem,
};

/// Writes `body` as JSON.
///
/// # Errors
/// 500, if it cannot be serialised: a defect of the type.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Result<HttpResponse, Problem> {
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, body).map_err(|e| Problem::hidden(Kind::Internal, e.to_string()))?;
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(HttpResponse::build(status).insert_header(content_type).body(bytes))
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
