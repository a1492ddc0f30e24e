//! Files of a container: `cp`, `diff`. A stopped container's are reached through a VM booted for them, unseen by the user.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::sandbox::{
    ArchiveGetRequest, ArchiveGetResponse, ArchivePutOpen, ArchivePutRequest, ArchiveStatRequest, Change,
    ChangesRequest, PathStat, SetTimeRequest,
};
use runner::Handle;
use tokio::{
    sync::{MutexGuard, mpsc, oneshot},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Engine, clock, container::Container, prepare, record::Status, vm};
use crate::error::{Error, Result};

/// How long an unseen VM waits for the next call: `docker cp` makes two or three.
const IDLE: Duration = Duration::from_secs(5);
/// Longest wait for the first bytes of an archive, and for the end of one put in.
const ARCHIVE: Duration = Duration::from_secs(60);
/// Parts of an archive on their way to a slow client.
const PARTS: usize = 4;
/// Memory for the changes of a container, and of each beside its path; arca-init itself lists fewer.
const MAX_CHANGES: usize = 96 << 20;
const CHANGE_COST: usize = 48;
/// Mounting a root.
const PREPARE: Duration = Duration::from_secs(60);

/// The unseen VM of a stopped container.
#[derive(Debug, Default)]
pub struct Files {
    vm: Option<Handle>,
    used: Option<Instant>,
}

/// A guest in which a container's files are, for as long as this lives.
struct Guest<'a> {
    vm: Handle,
    /// Held while an unseen VM is in use.
    _files: Option<MutexGuard<'a, Files>>,
}

impl Engine {
    /// What a path of a container is.
    ///
    /// # Errors
    /// 404 when it is not there.
    pub async fn stat_path(self: &Arc<Self>, container: &Arc<Container>, path: &str) -> Result<PathStat> {
        let guest = self.guest(container).await?;
        let request = ArchiveStatRequest { container_id: container.id.clone(), path: path.into() };
        let answer = vm::call("stat", vm::QUICK, guest.vm.sandbox().archive_stat(request)).await;
        answer
            .map_err(|error| no_such_file(error, container, path))?
            .stat
            .ok_or_else(|| Error::system("no stat"))
    }

    /// A tar of a path: what the path is, and the bytes.
    ///
    /// # Errors
    /// 404 when it is not there.
    pub async fn get_archive(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: &str,
    ) -> Result<(PathStat, ReceiverStream<Result<Bytes>>)> {
        let (give_stat, stat) = oneshot::channel();
        let (parts, body) = mpsc::channel(PARTS);
        let (engine, container, path) = (self.clone(), container.clone(), path.to_owned());
        tokio::spawn(async move { engine.copy_out(&container, &path, give_stat, parts).await });
        let stat = stat.await.map_err(|_| Error::system("the task that reads an archive was lost"))??;
        Ok((stat, ReceiverStream::new(body)))
    }

    /// Reads an archive from the guest; the guest stays until it is read.
    async fn copy_out(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: &str,
        stat: oneshot::Sender<Result<PathStat>>,
        parts: mpsc::Sender<Result<Bytes>>,
    ) {
        let open = async {
            let guest = self.guest(container).await?;
            let request = ArchiveGetRequest { container_id: container.id.clone(), path: path.into() };
            let mut stream = vm::call("archive", ARCHIVE, guest.vm.sandbox().archive_get(request))
                .await
                .map_err(|error| no_such_file(error, container, path))?;
            let first = next(&mut stream).await.map_err(|error| no_such_file(error, container, path))?;
            let first = first.unwrap_or_default();
            let stat = first.stat.ok_or_else(|| Error::system("the guest sent an archive without a stat"))?;
            Ok((guest, stream, stat, first.data))
        };
        let (_guest, mut stream, what, first) = match open.await {
            Ok(opened) => opened,
            Err(error) => return drop(stat.send(Err(error))),
        };
        self.events.publish(container.event("archive-path").with("path", path));
        if stat.send(Ok(what)).is_err() || parts.send(Ok(first)).await.is_err() {
            return;
        }
        loop {
            match next(&mut stream).await {
                Ok(Some(part)) => {
                    if parts.send(Ok(part.data)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                // The body breaks off: the client sees that the tar is not whole.
                Err(error) => return drop(parts.send(Err(error)).await),
            }
        }
    }

    /// Unpacks a tar into a folder. `parts` is what the client sends.
    ///
    /// # Errors
    /// 404 when the folder is not there, 400 for what is no folder or no tar, 403 for a read-only root.
    pub async fn put_archive(
        self: &Arc<Self>,
        container: &Arc<Container>,
        mut open: ArchivePutOpen,
        parts: impl futures::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<()> {
        use futures::StreamExt;
        if container.record().host.readonly_rootfs {
            return Err(Error::new(crate::error::Kind::Forbidden, "container rootfs is marked read-only"));
        }
        let guest = self.guest(container).await?;
        open.container_id.clone_from(&container.id);
        let path = open.path.clone();
        let first = ArchivePutRequest { open: Some(open), data: Bytes::new() };
        let (sending, sent) = oneshot::channel::<()>();
        let rest = parts.map(move |data| {
            // Dropped with the stream.
            let _ = &sending;
            ArchivePutRequest { open: None, data }
        });
        let requests = futures::stream::iter([first]).chain(rest);
        let mut sandbox = guest.vm.sandbox();
        let put = sandbox.archive_put(requests);
        // It lasts as long as the client sends, and then what the guest needs to write it.
        let late = async {
            let _ = sent.await;
            tokio::time::sleep(ARCHIVE).await;
        };
        let put = tokio::select! {
            put = put => put,
            () = late => return Err(Error::system(format!("archive: not unpacked within {ARCHIVE:?}"))),
        };
        put.map_err(|status| no_such_file(vm::status_error(&status), container, &path))?;
        self.events.publish(container.event("extract-to-dir").with("path", path));
        Ok(())
    }

    /// What differs from the image.
    ///
    /// # Errors
    /// When the guest fails.
    pub async fn changes(self: &Arc<Self>, container: &Arc<Container>) -> Result<Vec<Change>> {
        let guest = self.guest(container).await?;
        let request = ChangesRequest { container_id: container.id.clone() };
        let mut stream = vm::call("changes", ARCHIVE, guest.vm.sandbox().changes(request)).await?;
        let mut changes = Vec::new();
        let mut size = 0;
        loop {
            let part = tokio::time::timeout(ARCHIVE, stream.message())
                .await
                .map_err(|_| Error::system(format!("changes: nothing within {ARCHIVE:?}")))?
                .map_err(|status| vm::status_error(&status))?;
            let Some(part) = part else { return Ok(changes) };
            size += part.changes.iter().map(|change| change.path.len() + CHANGE_COST).sum::<usize>();
            if size > MAX_CHANGES {
                return Err(Error::system("changes: the guest tells of too many"));
            }
            changes.extend(part.changes);
        }
    }

    /// Ends the unseen VM, if there is one.
    pub(crate) async fn close_files(&self, container: &Container) {
        close(&mut *container.files.lock().await).await;
    }

    async fn guest<'a>(self: &Arc<Self>, container: &'a Arc<Container>) -> Result<Guest<'a>> {
        self.settled(container).await?;
        if let Some(run) = container.run() {
            return Ok(Guest { vm: run.vm.clone(), _files: None });
        }
        let mut files = container.files.lock().await;
        // A start holds the lock while it boots.
        if let Some(run) = container.run() {
            return Ok(Guest { vm: run.vm.clone(), _files: None });
        }
        if matches!(container.status(), Status::Removing | Status::Dead) {
            return Err(Error::conflict(format!("container {} is marked for removal", container.id)));
        }
        let alive = files.vm.clone().filter(Handle::is_alive);
        let handle = match alive {
            Some(handle) => handle,
            None => {
                // The VM of the last run may still be ending.
                self.wait_idle(container).await?;
                let handle = self.boot_files(container).await?;
                files.vm = Some(handle.clone());
                handle
            }
        };
        let used = Instant::now();
        files.used = Some(used);
        let again = container.clone();
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let mut files = again.files.lock().await;
            if files.used == Some(used) {
                close(&mut files).await;
            }
        });
        Ok(Guest { vm: handle, _files: Some(files) })
    }

    async fn boot_files(&self, container: &Container) -> Result<Handle> {
        let record = container.record();
        let lowers = self.images.disks(&record.image_id).await?;
        let request = prepare::prepare(&record, lowers.len(), true)?;
        // A folder of its own: the exit record of the last run must stay.
        let dir = self.home.container(&record.id).join("files");
        let handle = self.boot(&record, &lowers, dir).await?;
        let now = clock::since_epoch();
        let time = SetTimeRequest {
            seconds: i64::try_from(now.as_secs()).unwrap_or(0),
            nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or(0),
        };
        let ready = async {
            vm::call("set the clock", vm::QUICK, handle.sandbox().set_time(time)).await?;
            vm::call("mount the root", PREPARE, handle.sandbox().prepare(request)).await
        };
        match ready.await {
            Ok(_) => Ok(handle),
            Err(error) => {
                vm::retire(&handle).await;
                Err(error)
            }
        }
    }
}

async fn next(stream: &mut Streaming<ArchiveGetResponse>) -> Result<Option<ArchiveGetResponse>> {
    tokio::time::timeout(ARCHIVE, stream.message())
        .await
        .map_err(|_| Error::system(format!("archive: nothing within {ARCHIVE:?}")))?
        .map_err(|status| vm::status_error(&status))
}

/// Ends the unseen VM.
pub(crate) async fn close(files: &mut Files) {
    files.used = None;
    if let Some(handle) = files.vm.take() {
        vm::retire(&handle).await;
    }
}

fn no_such_file(error: Error, container: &Container, path: &str) -> Error {
    if error.kind == crate::error::Kind::NotFound {
        let text = format!("Could not find the file {path} in container {}", container.record().name);
        return Error::not_found(text).because(error);
    }
    error
}
