//! The answer that is a stream: fetched as the client reads it, and broken off rather than ended when something is
//! wrong, so that a part never looks like the whole.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::{encode, format::Format};
use crate::{
    app::{Error, telemetry::Export},
    http::Problem,
};

/// What the stream is made of.
pub(super) struct Streamed {
    pub(super) export: Export,
    pub(super) format: Format,
    /// Whether each line names its device.
    pub(super) serials: bool,
    /// The name of the file that a browser saves it as, without what is behind the dot.
    pub(super) name: String,
    /// Cancelled when open connections are to end.
    pub(super) stopping: CancellationToken,
}

impl Streamed {
    /// The answer. The first points are fetched before it begins: what is wrong from the outset is a problem.
    ///
    /// # Errors
    /// Those of the first fetch.
    pub(super) async fn answer(mut self) -> Result<Response, Problem> {
        let (format, name) = (self.format, self.name.clone());
        let mut first = encode::head(format, self.serials).as_bytes().to_vec();
        first.extend(self.lines().await?.unwrap_or_default());
        let rest = stream::try_unfold(self, async |mut streamed: Self| -> Result<_, Error> {
            let lines = streamed.lines().await?;
            Ok(lines.map(|lines| (Bytes::from(lines), streamed)))
        });
        let body = stream::StreamExt::chain(stream::iter([Ok(Bytes::from(first))]), rest);
        let file = format!("attachment; filename=\"{name}.{}\"", format.name());
        let file = HeaderValue::from_str(&file).map_err(Error::internal)?;
        let headers = [
            (header::CONTENT_TYPE, format.content_type()),
            (header::CONTENT_DISPOSITION, file),
            (header::VARY, HeaderValue::from_static("accept")),
        ];
        Ok((headers, Body::from_stream(body)).into_response())
    }

    /// The next lines; `None` at the end.
    async fn lines(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let next = self.stopping.run_until_cancelled(self.export.next()).await;
        match next.ok_or(Error::Stopping)?? {
            Some(points) => encode::lines(self.format, self.serials, points).map(Some),
            None => Ok(None),
        }
    }
}
