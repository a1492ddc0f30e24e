//! Calls to the guest with deadlines; repeated when the connection was lost, since every RPC of it is idempotent.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::{
    dial, ports,
    sandbox::{GetInfoRequest, GetInfoResponse, sandbox_client::SandboxClient},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{Error, VmSpec, silence, vmm::Vm};

/// Time one attempt to get a booting guest's first answer may take: it could have been asked before it could answer.
const FIRST: Duration = Duration::from_secs(5);

/// Pause before a repeat.
const RETRY: Duration = Duration::from_millis(10);

/// Calls until an answer or the deadline; `stage` names the call in the error.
///
/// # Errors
/// The guest's own errors unchanged, [`Error::Timeout`].
pub(crate) async fn call<T, F, Fut>(stage: &'static str, within: Duration, mut request: F) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let deadline = Instant::now() + within;
    let mut tail = String::new();
    loop {
        match timeout_at(deadline, request()).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if is_lost(&status) && Instant::now() + RETRY < deadline => {
                tail = format!(" (last: {})", status.message());
                sleep(RETRY).await;
            }
            Ok(Err(status)) if is_lost(&status) => return Err(Error::Timeout { stage, after: within, tail }),
            Ok(Err(status)) => return Err(status.into()),
            Err(_) => return Err(Error::Timeout { stage, after: within, tail }),
        }
    }
}

/// Waits until a booting guest's service answers.
pub(crate) async fn ready(vm: &dyn Vm, spec: &VmSpec) -> Result<(), Error> {
    let within = Duration::from_millis(spec.boot_timeout_ms.max(1));
    let deadline = Instant::now() + within;
    let late = || {
        let tail = String::from(" (the limit is bootTimeout in config.json)");
        Error::Timeout { stage: "answer of the guest", after: within, tail }
    };
    // A plain dial first: cheaper to repeat than a gRPC channel.
    dial::connect_until(&spec.vsock_socket(), ports::GUEST_CONTROL, deadline).await.map_err(|_| late())?;
    tracing::debug!("guest listens");
    loop {
        match timeout_at(deadline, timeout(FIRST, info(vm))).await {
            Ok(Ok(Ok(info))) => {
                let GetInfoResponse { version, kernel_release, uptime_ms, .. } = info;
                tracing::info!(version, kernel_release, uptime_ms, "guest");
                return Ok(());
            }
            Ok(Ok(Err(status))) if !is_lost(&status) => return Err(status.into()),
            Ok(Ok(Err(_))) => sleep(RETRY).await,
            Ok(Err(_)) => tracing::debug!("no answer of the guest within {FIRST:?}"),
            Err(_) => return Err(late()),
        }
    }
}

/// Ends once the guest does not answer any more.
pub(crate) async fn until_silent(vm: &dyn Vm) {
    // A connection that hangs must not be mistaken for the guest: it is used again only after an answer.
    let kept = Mutex::new(None);
    let kept = &kept;
    silence::until_silent(silence::LIMIT, || async move {
        // Nothing is lost while it waits, all would be if it were ended.
        if vm.waits_for_room() {
            return true;
        }
        let known = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut guest = known.unwrap_or_else(|| control(vm));
        let answer = guest.get_info(GetInfoRequest {}).await;
        // Any answer is a sign of life.
        let lives = answer.as_ref().err().is_none_or(|status| !is_lost(status));
        if lives {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(guest);
        }
        lives
    })
    .await;
}

/// Over a connection of its own: one that hangs must not be mistaken for the guest.
async fn info(vm: &dyn Vm) -> Result<GetInfoResponse, Status> {
    control(vm).get_info(GetInfoRequest {}).await.map(Response::into_inner)
}

/// A connection that is dialled with the first question.
fn control(vm: &dyn Vm) -> SandboxClient<Channel> {
    SandboxClient::new(vm.channel(ports::GUEST_CONTROL))
}

/// Whether the status tells of the connection, not of the request: tonic has `Unavailable` for a failed dial and `Unknown`
/// or `Internal` with a source for a broken one, where a status sent by the peer has none.
pub(crate) fn is_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable || std::error::Error::source(status).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::StreamExt;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{
        service::Routes,
        transport::{Endpoint, Server},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeats_what_was_lost_and_keeps_what_was_said() {
        let mut left = 3;
        let answer = call("x", Duration::from_secs(1), || {
            left -= 1;
            async move { if left > 0 { Err(Status::unavailable("no")) } else { Ok(Response::new(left)) } }
        });
        assert_eq!(answer.await.unwrap(), 0);
        let refused =
            call("x", Duration::from_secs(1), || async { Err::<Response<()>, _>(Status::not_found("n")) });
        assert!(matches!(refused.await, Err(Error::Rpc(status)) if status.code() == Code::NotFound));
        let silent = call("answer", Duration::from_secs(1), std::future::pending::<Result<Response<()>, _>>);
        assert_eq!(silent.await.unwrap_err().to_string(), "no answer within 1s");
    }
    /// A guest behind a TCP socket.
    struct Listens(String);

    #[async_trait::async_trait]
    impl Vm for Listens {
        fn pid(&self) -> u32 {
            1
        }
        fn channel(&self, _port: u32) -> Channel {
            Endpoint::from_shared(self.0.clone()).unwrap().connect_lazy()
        }
        async fn wait(&self) -> String {
            std::future::pending().await
        }
        fn kill(&self) {}
        fn waits_for_room(&self) -> bool {
            false
        }
        fn condition(&self) -> String {
            String::new()
        }
        fn tail(&self, _lines: usize) -> String {
            String::new()
        }
    }

    #[tokio::test]
    async fn a_guest_that_answers_is_asked_over_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let vm = Listens(format!("http://{}", listener.local_addr().unwrap()));
        let (count, connections) = mpsc::channel();
        let incoming = TcpListenerStream::new(listener).inspect(move |_| count.send(()).unwrap());
        // It knows none of the calls, and says so: an answer.
        let server = Server::builder().add_routes(Routes::default()).serve_with_incoming(incoming);
        tokio::spawn(server);
        assert!(timeout(Duration::from_secs(12), until_silent(&vm)).await.is_err(), "taken for dead");
        assert_eq!(connections.try_iter().count(), 1, "for three questions");
    }
}
