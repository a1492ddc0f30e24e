//! Streams of the archive RPCs and of Changes.

use std::{collections::HashSet, io, sync::Arc};

use bytes::Bytes;
use proto::sandbox::{ArchiveGetResponse, ArchivePutOpen, ArchivePutRequest, Change, ChangesResponse};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

use super::status;
use crate::{container::Container, files, users};

/// 64 KiB pieces between a blocking thread and HTTP/2.
const DEPTH: usize = 8;
/// Changes in one message.
const CHANGES: usize = 512;

/// A stream of responses.
pub(super) type Responses<T> = ReceiverStream<Result<T, Status>>;

/// Runs a blocking piece of work on the container's files.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, files::FilesError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| status::files(&e)),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

/// The tar stream of a path.
pub(super) async fn get(
    container: Arc<Container>,
    path: String,
) -> Result<Responses<ArchiveGetResponse>, Status> {
    let root = container.root.path();
    let source = blocking(move || files::get(&root, &path)).await?;
    let stat = source.stat.clone();
    let (writer, mut pieces) = files::chunks::writer(DEPTH);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        // The container's root must not be unmounted under the reader's feet; tear-down waits for nobody, so it fails.
        let written = blocking(move || source.write(writer));
        let head = ArchiveGetResponse { stat: Some(stat), data: Bytes::new() };
        let copy = async {
            let mut alive = sender.send(Ok(head)).await.is_ok();
            while let Some(data) = pieces.recv().await {
                alive = alive && sender.send(Ok(ArchiveGetResponse { stat: None, data })).await.is_ok();
                if !alive {
                    break;
                }
            }
            // Tells the writer that nobody reads.
            drop(pieces);
        };
        let (result, ()) = tokio::join!(written, copy);
        if let Err(status) = result {
            let _ = sender.send(Err(status)).await;
        }
        drop(container);
    });
    Ok(ReceiverStream::new(receiver))
}

/// Unpacks a tar stream.
pub(super) async fn put(
    container: Arc<Container>,
    open: ArchivePutOpen,
    first: Bytes,
    mut requests: Streaming<ArchivePutRequest>,
) -> Result<(), Status> {
    let root = container.root.path();
    let chown = if open.copy_uid_gid { Some(owner(&container)?) } else { None };
    let options = files::PutOptions {
        no_overwrite_dir_non_dir: open.no_overwrite_dir_non_dir,
        chown,
        read_only: container.request.rootfs.as_ref().is_some_and(|rootfs| rootfs.readonly),
    };
    let (sender, reader) = files::chunks::reader(DEPTH);
    let unpacked = blocking(move || files::put(&root, &open.path, reader, &options));
    let copy = async move {
        let mut next = Some(Ok(first));
        loop {
            match next.take() {
                Some(Ok(data)) if data.is_empty() => {}
                Some(piece) => {
                    let failed = piece.is_err();
                    if sender.send(piece).await.is_err() || failed {
                        break;
                    }
                }
                None => break,
            }
            next = requests.next().await.map(|request| request.map(|r| r.data).map_err(io::Error::other));
        }
    };
    tokio::pin!(unpacked);
    tokio::pin!(copy);
    // An early error must be told without waiting for the rest of the stream.
    tokio::select! {
        result = &mut unpacked => result,
        () = &mut copy => unpacked.await,
    }
}

/// docker's copyUIDGID: the container's user.
fn owner(container: &Container) -> Result<(u32, u32), Status> {
    let user = container.all().into_iter().find(|process| process.first).map(|p| p.spec.user.clone());
    let account = users::resolve(&container.root.path(), &user.unwrap_or_default(), &[])
        .map_err(|e| status::about(Code::InvalidArgument, e.to_string(), ""))?;
    Ok((account.uid, account.gid))
}

/// What differs from the image.
pub(super) async fn changes(container: Arc<Container>) -> Result<Responses<ChangesResponse>, Status> {
    let found = blocking(move || {
        let managed: HashSet<String> =
            container.request.managed_files.iter().map(|file| file.target.clone()).collect();
        files::changes(&container.root.upper(), &container.root.lowers(), &managed)
    });
    let found: Vec<Change> = found.await?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for changes in found.chunks(CHANGES) {
            if sender.send(Ok(ChangesResponse { changes: changes.to_vec() })).await.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}
