//! `POST /images/load`: docker load.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::Request, response::Response};
use futures::TryStreamExt;
use images::{Loaded, Progress, ProgressEvent};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::{super::query::Query, progress};
use crate::{
    engine::Engine,
    error::{Error, Result},
};

/// Hides the progress of layers; what was loaded is still told.
struct Quiet(mpsc::UnboundedSender<ProgressEvent>);

impl Progress for Quiet {
    fn event(&self, event: ProgressEvent) {
        if !matches!(event, ProgressEvent::Layer { .. }) {
            self.0.event(event);
        }
    }
}

pub(super) async fn load(
    State(engine): State<Arc<Engine>>,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    #[allow(
        clippy::disallowed_methods,
        reason = "a layer says no more than ten times a second how far it is"
    )]
    let (sender, received) = mpsc::unbounded_channel();
    let sink: Arc<dyn Progress> =
        if query.bool("quiet") { Arc::new(Quiet(sender)) } else { Arc::new(sender) };
    let body = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let work = {
        let engine = engine.clone();
        async move {
            let loaded = engine.images.load(StreamReader::new(Box::pin(body)), sink).await?;
            for image in &loaded {
                let (Loaded::Tag(name) | Loaded::Id(name)) = image;
                let id =
                    engine.images.find(name).ok().flatten().map_or_else(|| name.clone(), |image| image.id);
                super::publish(&engine, "load", &id, name);
            }
            Ok::<_, Error>(())
        }
    };
    progress::respond(work, received).await
}
