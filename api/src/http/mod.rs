//! REST: routes, extractors and problem+json. A handler parses, calls one use case, and presents the answer.

mod actor;
mod page;
mod problem;

pub use page::{Page, PageQuery};
pub use problem::Problem;
