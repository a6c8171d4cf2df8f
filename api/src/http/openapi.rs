//! The OpenAPI document: made of the routes themselves, and served beside them.

use axum::{Router, http::header, response::IntoResponse, routing::get};
use bytes::Bytes;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, Ref, RefOr,
        content::{Content, ContentBuilder},
        path::Operation,
        response::ResponseBuilder,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{BASE, Problem};

/// What stands in the document beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Setpoint",
        description = "Set what devices should do; see what they do. Errors are `application/problem+json` \
            (RFC 9457); lists are `{\"items\":[...],\"next\":\"cursor or null\"}`; times are RFC 3339 in UTC.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem)),
    modifiers(&Security),
    tags(
        (name = "devices", description = "Devices and their credentials"),
        (name = "settings", description = "What a device should run, and what it says it runs"),
        (name = "models", description = "Product types: settings schemas and telemetry names"),
        (name = "sessions", description = "Who is connected over MQTT"),
        (name = "telemetry", description = "What devices measure"),
        (name = "alerts", description = "Rules over what devices send and how they are, and where devices stand"),
        (name = "people", description = "People, their sessions, and the audit log"),
        (name = "claiming", description = "How a device is registered to its owner (RFC 8628)"),
        (name = "tokens", description = "API tokens"),
        (name = "webhooks", description = "Programs outside that are told of what happens"),
        (name = "server", description = "The server itself"),
    ),
)]
pub(super) struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description =
            Some("An API token: `spt_...`. Each operation names the scope it needs.".to_owned());
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let session = ApiKeyValue::with_description(
            "setpoint_session",
            "A person's session, from `POST /api/v1/session`; all but GET also need its `X-CSRF-Token`.",
        );
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
        let mut device = Http::new(HttpAuthScheme::Basic);
        device.description =
            Some("A device's serial and its own token, on the routes that devices call.".to_owned());
        components.add_security_scheme("device", SecurityScheme::Http(device));
    }
}

/// Every operation may answer with a problem: said once, here. So an error's response in a handler's documentation is a
/// status and a description, and only one with another body says which.
pub(super) fn with_problems(mut document: openapi::OpenApi) -> openapi::OpenApi {
    for item in document.paths.paths.values_mut() {
        let operations: [&mut Option<Operation>; 5] = [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            // Whatever a token may do, a person may who is signed in.
            if let Some(requirements) = &mut operation.security {
                let session = SecurityRequirement::new::<_, [&str; 0], &str>("session", []);
                let anybody = SecurityRequirement::default();
                if !requirements.is_empty()
                    && !requirements.contains(&anybody)
                    && !requirements.contains(&session)
                {
                    requirements.push(session);
                }
            }
            let responses = &mut operation.responses.responses;
            for (status, response) in responses.iter_mut() {
                if let RefOr::T(response) = response
                    && response.content.is_empty()
                    && status.starts_with(['4', '5'])
                {
                    response.content.insert(PROBLEM_JSON.to_owned(), problem().into());
                }
            }
            let any = ResponseBuilder::new()
                .description("An error, told by `code`, `detail` and `errors`")
                .content(PROBLEM_JSON, problem())
                .build();
            responses.entry("default".to_owned()).or_insert(any.into());
        }
    }
    document
}

/// RFC 9457, section 3.
const PROBLEM_JSON: &str = "application/problem+json";

fn problem() -> Content {
    let schema = Ref::from_schema_name("Problem");
    ContentBuilder::new().schema(Some(schema)).build()
}

/// Serves the document, rendered once.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(
    document: &openapi::OpenApi,
) -> Result<Router<S>, serde_json::Error> {
    let rendered = Bytes::from(document.to_json()?);
    let answer = move || {
        let rendered = rendered.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], rendered).into_response() }
    };
    Ok(Router::new()
        .route("/openapi.json", get(answer.clone()))
        .route(&format!("{BASE}/openapi.json"), get(answer)))
}
