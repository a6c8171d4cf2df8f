//! Lists: `{"items":[...],"next":"cursor or null"}` with `limit`, `cursor`, `sort` and `q`.

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::app;

/// The largest `limit`, in items.
pub(super) const MAX_LIMIT: i64 = 1_000;
/// The `limit` when none is asked for.
pub(super) const DEFAULT_LIMIT: i64 = 100;

/// One page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// The `cursor` of the next page; `null` on the last.
    pub next: Option<String>,
}

/// The query parameters that every list takes.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items at most: 1 to 1000, 100 by default.
    pub limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The limit in force.
    ///
    /// # Errors
    /// 422 when it isn't 1 to [`MAX_LIMIT`].
    pub fn limit(&self) -> Result<i64, Problem> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            _ => Err(app::Error::invalid("limit", format!("1 to {MAX_LIMIT}")).into()),
        }
    }
}
