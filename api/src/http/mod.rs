//! REST: routes, extractors and problem+json. A handler parses, calls one use case, and presents the answer.
//!
//! Each noun has a file with `pub(super) fn routes() -> OpenApiRouter<Context>`, its paths relative to
//! `/api/v1`; [`api`] merges them. The OpenAPI document is made of the same routes.

mod actor;
mod extract;
mod page;
mod problem;
pub mod websocket;

use axum::extract::FromRef;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

pub use actor::DeviceActor;
pub use extract::{Json, Path, Payload, Query};
pub use page::{Page, PageQuery};
pub use problem::Problem;

/// Where the REST interface stands.
pub const BASE: &str = "/api/v1";

/// What handlers may ask for with `State`. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The use cases.
    pub app: App,
}

impl FromRef<Context> for App {
    fn from_ref(context: &Context) -> Self {
        context.app.clone()
    }
}

/// The routes of every noun, under [`BASE`]: one line each, in alphabetical order.
fn api() -> OpenApiRouter<Context> {
    let nouns = OpenApiRouter::new();
    // .merge(devices::routes())
    OpenApiRouter::new().nest(BASE, nouns)
}

/// Every route of the server.
pub fn router() -> OpenApiRouter<Context> {
    api()
}
