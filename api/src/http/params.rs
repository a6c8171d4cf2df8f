//! What several routes have in their path, as OpenAPI describes it. A handler takes the parts with [`super::Path`].

use utoipa::IntoParams;
use uuid::Uuid;

/// `/devices/{serial}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the handlers")]
pub(super) struct DevicePath {
    /// The device's serial
    #[param(example = "HOME-1")]
    serial: String,
}

/// `/groups/{name}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the handlers")]
pub(super) struct GroupPath {
    /// The group's name
    #[param(example = "oslo")]
    name: String,
}

/// `/models/{name}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the handlers")]
pub(super) struct ModelPath {
    /// The model's name
    #[param(example = "home")]
    name: String,
}

/// `/alerts/{name}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the handlers")]
pub(super) struct AlertPath {
    /// The rule's name
    #[param(example = "too-hot")]
    name: String,
}

/// `/webhooks/{name}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the handlers")]
pub(super) struct WebhookPath {
    /// The webhook's name
    #[param(example = "ops")]
    name: String,
}

/// `/changes/{id}`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the handlers")]
pub(super) struct ChangePath {
    /// The change's id
    id: Uuid,
}
