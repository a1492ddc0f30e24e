//! `arca.tapforwarder.v1`: status is true already; networks come with the helper VM.

use proto::tapforwarder::{
    AttachNetworkRequest, AttachNetworkResponse, DetachNetworkRequest, DetachNetworkResponse,
    GetStatusRequest, GetStatusResponse, ListNetworksRequest, ListNetworksResponse, UpdateDnsMappingsRequest,
    UpdateDnsMappingsResponse, tap_forwarder_server,
};
use tonic::{Request, Response, Status};

use crate::boot::kernel;

/// The service; it has no networks yet.
pub(super) struct TapForwarder;

fn later<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("networking comes with the helper VM"))
}

#[tonic::async_trait]
impl tap_forwarder_server::TapForwarder for TapForwarder {
    async fn attach_network(
        &self,
        _: Request<AttachNetworkRequest>,
    ) -> Result<Response<AttachNetworkResponse>, Status> {
        later()
    }

    async fn detach_network(
        &self,
        _: Request<DetachNetworkRequest>,
    ) -> Result<Response<DetachNetworkResponse>, Status> {
        later()
    }

    async fn list_networks(
        &self,
        _: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        Ok(Response::new(ListNetworksResponse { networks: Vec::new() }))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            active_networks: 0,
            uptime_seconds: kernel::uptime_ms() / 1000,
        }))
    }

    async fn update_dns_mappings(
        &self,
        _: Request<UpdateDnsMappingsRequest>,
    ) -> Result<Response<UpdateDnsMappingsResponse>, Status> {
        later()
    }
}
