//! Lists: `{"items":[...],"next":"cursor or null"}` with `limit`, `cursor`, `sort` and `q`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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

impl<T> Page<T> {
    /// A page of `limit` items, of which one more was asked for to see whether there is a next page.
    pub fn of(mut items: Vec<T>, limit: i64, cursor: impl FnOnce(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }

    /// The same page with its items presented otherwise.
    pub fn map<U>(self, present: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(present).collect(),
            next: self.next,
        }
    }
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
        limit(self.limit)
    }
}

/// The query parameters of a list by age that takes no others; its cursor is an id.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct IdPageQuery {
    /// How many items at most: 1 to 1000, 100 by default.
    pub limit: Option<i64>,
    /// Where to go on: the `next` of the page before.
    pub cursor: Option<Uuid>,
}

/// The limit in force when `asked` was asked for.
///
/// # Errors
/// 422 when it isn't 1 to [`MAX_LIMIT`].
pub(super) fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(app::Error::invalid("limit", format!("1 to {MAX_LIMIT}")).into()),
    }
}

/// The place that a cursor names, `None` for the first page.
///
/// # Errors
/// 422 for a cursor that this list never gave.
pub(super) fn cursor<T: FromStr>(asked: Option<&str>) -> Result<Option<T>, Problem> {
    let place = asked.map(str::parse).transpose();
    place.map_err(|_| app::Error::invalid("cursor", "is not a cursor of this list").into())
}

/// The name after which a list by name goes on, empty for the first page.
///
/// # Errors
/// 422 for a cursor that is no such name.
pub(super) fn after<N: FromStr + ToString>(asked: Option<&str>) -> Result<String, Problem> {
    let name = cursor::<N>(asked)?;
    Ok(name.map(|name| name.to_string()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn the_cursor_is_the_last_item_while_there_are_more() {
        let page = Page::of(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((page.items, page.next.as_deref()), (vec![1, 2], Some("2")));
        let page = Page::of(vec![1, 2], 2, ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], None));
    }
}
