//! The limits that HTTP itself enforces, as plain numbers handed down by whoever builds the server.

use crate::{base::page::PageRequest, http::problem::Problem};

/// Largest body of a request that anybody may send without saying who they are, in bytes.
pub(crate) const CREDENTIALS_MAX: usize = 4 * 1024;
/// Entries on a page when the client names no limit.
const PAGE_LIMIT_DEFAULT: usize = 50;

/// Limits on what one request may bring or ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Most bytes of a body.
    pub max_body: usize,
    /// Most bytes of a body that carries many jobs.
    pub max_bulk_body: usize,
    /// Most entries on a page.
    pub page_limit_max: usize,
}

impl HttpLimits {
    /// The limit of a body with credentials.
    #[must_use]
    pub fn credentials(&self) -> usize {
        self.max_body.min(CREDENTIALS_MAX)
    }

    /// Checks the page parameters that every list has.
    ///
    /// # Errors
    /// 400, naming `limit` or `cursor`.
    pub fn page(&self, limit: Option<u32>, cursor: Option<&str>) -> Result<PageRequest, Problem> {
        let max = self.page_limit_max;
        let limit = match limit {
            None => PAGE_LIMIT_DEFAULT.min(max),
            Some(n) => usize::try_from(n)
                .ok()
                .filter(|n| (1..=max).contains(n))
                .ok_or_else(|| Problem::invalid_field("limit", format!("is {n}, but must be 1 to {max}")))?,
        };
        let after = cursor.map(str::parse).transpose().map_err(|e: String| Problem::invalid_field("cursor", e))?;
        Ok(PageRequest { limit, after })
    }
}
