//! `--claim`: a device without a token gets one from its owner.

use device_sim::{
    Token,
    claim::{ClaimError, claim},
};
use setpoint_model::Serial;

use crate::{cli::Run, output, run::Failure};

/// Shows the code on standard output and waits until the owner has entered it.
pub(crate) async fn enrol(run: &Run, serial: &Serial) -> Result<Token, Failure> {
    let json = run.server.json;
    let claiming = claim(
        run.server.api.as_str(),
        serial,
        run.claim_secret.as_deref(),
        |codes| {
            if json {
                let shown = serde_json::json!({
                    "serial": serial, "event": "claim", "user_code": codes.user_code,
                    "verification_uri": codes.verification_uri,
                    "verification_uri_complete": codes.verification_uri_complete, "expires_in": codes.expires_in,
                });
                output::line(&shown.to_string());
            } else {
                output::line(&format!(
                    "To register {serial} to yourself, open {} and enter the code\n\n    {}\n",
                    codes.verification_uri, codes.user_code
                ));
            }
        },
    );
    let token = claiming.await.map_err(|error| match error {
        ClaimError::Refused { .. } => Failure::NotAuthorized(error.to_string()),
        error => Failure::Other(error.to_string()),
    })?;
    if !json {
        output::line(&format!("{serial} is registered"));
    }
    Ok(token)
}
