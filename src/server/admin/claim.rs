//! The admin listener at the start: which socket it gets, and when it begins to serve.
//!
//! Owns the decision. A start claims the place before it starts threads, so that a place that is not free ends the
//! start with a sentence and not a running server. Where no place is configured, the server runs without the listener
//! and says why. A process that takes over inherits the socket (`Claimed::copy`). Does not serve (`server.rs`) or make
//! the socket (`listener.rs`).
//! Limit: one listener. Cost: once at the start, a few system calls.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;

use socket2::Socket;

use super::listener::{AdminListener, bind, bind_error_text, bind_file, is_at, start_refusal};
use super::{AdminServer, ScrapeSources};
use crate::config::admin::{Admin, AdminPlace};
use crate::server::probe::StartError;
use crate::server::takeover::Order;

/// The state of the listener between the claim and the start of its thread.
pub(in crate::server) enum Claimed {
    Off,
    Listens(AdminListener),
    /// The default place is not free, and no place was configured. The text is the reason.
    Without(String),
}

impl Claimed {
    /// A copy for a process that takes over.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(in crate::server) fn copy(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Listens(listener) => listener.socket.try_clone().map(OwnedFd::from).map(Some),
            Self::Off | Self::Without(_) => Ok(None),
        }
    }

    pub(in crate::server) fn describe(&self, admin: &Admin) -> String {
        match self {
            Self::Off => String::new(),
            Self::Without(why) => format!("none: {why}"),
            Self::Listens(listener) => {
                let place = match &listener.place {
                    AdminPlace::Tcp(address) => format!("http://{address}"),
                    place => place.to_string(),
                };
                match &admin.token {
                    Some(_) => format!("{place}, needs the token of RINGVERB_ADMIN_TOKEN"),
                    None => place,
                }
            }
        }
    }

    /// A default place that is in use is logged, and the server runs without the listener.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(in crate::server) fn serve(
        self,
        sources: ScrapeSources,
        orders: Sender<Order>,
    ) -> io::Result<Option<AdminServer>> {
        match self {
            Self::Off => Ok(None),
            Self::Listens(listener) => AdminServer::start(listener, sources, orders).map(Some),
            Self::Without(why) => {
                tracing::warn!(
                    event = "admin_listener_missing",
                    "no admin listener, so no metrics: {why}. Set RINGVERB_ADMIN to another address, or to off"
                );
                Ok(None)
            }
        }
    }
}

/// `inherited`: that of the process whose place this one takes. It is used only where the configuration wants it.
///
/// # Errors
/// When a place that is configured cannot be had.
pub(in crate::server) fn bind_or_inherit(
    admin: &Admin,
    inherited: Option<OwnedFd>,
) -> Result<Claimed, StartError> {
    let inherited = inherited.map(Socket::from).filter(|socket| is_at(socket, &admin.place));
    let socket = match (&admin.place, inherited) {
        (AdminPlace::Off, _) => return Ok(Claimed::Off),
        (_, Some(socket)) => Ok(socket),
        (AdminPlace::Tcp(address), None) => bind(*address),
        (AdminPlace::Unix(path), None) => bind_file(path),
    };
    let listener = socket.and_then(|socket| AdminListener::new(socket, &admin.place));
    match listener {
        Ok(listener) => Ok(Claimed::Listens(listener)),
        Err(error) if admin.is_explicit => {
            Err(StartError::Admin(start_refusal(&admin.place, &error)))
        }
        Err(error) => Ok(Claimed::Without(bind_error_text(&admin.place, &error))),
    }
}
