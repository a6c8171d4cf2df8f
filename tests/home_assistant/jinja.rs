//! Home Assistant's templates.

use minijinja::{Environment, context, value::Serde};
use serde_json::Value;

/// Renders a template as Home Assistant does for a message: with the payload as JSON, and the state as it was.
pub(super) fn render(template: &Value, payload: &Value, before: &str) -> String {
    let template = template.as_str().expect("a template");
    environment()
        .render_str(
            template,
            context! { value_json => minijinja::Value::from(Serde(payload)), this => context! { state => before } },
        )
        .unwrap_or_else(|error| panic!("{template} on {payload}: {error:#}"))
}

/// Renders a command for a value that somebody chose.
pub(super) fn command(component: &Value, value: Value) -> String {
    let template = component["command_template"].as_str().expect("a template");
    environment()
        .render_str(
            template,
            context! { value => minijinja::Value::from(Serde(value)) },
        )
        .expect("a command")
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.add_filter("to_json", |value: minijinja::Value| {
        minijinja::Value::from_safe_string(serde_json::to_string(&value).unwrap())
    });
    environment
}
