//! A registry client: OCI distribution-spec pulls, with docker's choice of schemes, mirrors and error texts.
//!
//! Own code over reqwest, since oci-client has no retry that resumes, no choice between https and http for
//! one host, no limits on sizes and redirects, and hides what dockerd's messages are made of.

mod auth;
mod download;
mod endpoint;
mod failure;
mod session;

pub(crate) use download::{Downloads, Wanted};
pub(crate) use endpoint::{Endpoint, Http};
pub(crate) use failure::translate;
pub(crate) use session::Session;
