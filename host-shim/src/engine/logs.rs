//! `logs`: the json-file that the runner writes.

use std::sync::Arc;

use runner::logs::{Entry, Query};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;

use super::{Engine, container::Container};
use crate::error::{Error, Kind, Result};

impl Engine {
    /// Entries of a container's log, oldest first; a following read ends with the present run.
    ///
    /// # Errors
    /// 501 when its log driver keeps nothing.
    pub async fn logs(
        &self,
        container: &Arc<Container>,
        query: Query,
    ) -> Result<ReceiverStream<Result<Entry, runner::Error>>> {
        if container.record().host.log_config.r#type == "none" {
            return Err(Error::new(
                Kind::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        self.settled(container).await?;
        let ended = match container.run() {
            Some(run) => run.ended.subscribe(),
            None => watch::Sender::new(true).subscribe(),
        };
        Ok(runner::logs::read(self.log_path(&container.id), query, ended))
    }
}
