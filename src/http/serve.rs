//! The listening socket and the life of the server: bind, serve, drain.
//!
//! Binding is a step of its own, so that a port in use is told before anything else has started.

use std::{
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::HttpServer;
use tokio::net::TcpSocket;

use crate::{
    base::shutdown::Shutdown,
    http::{HttpState, app},
};

/// Connections the kernel may hold for us while the workers are busy.
const BACKLOG: u32 = 2048;

/// How the server runs.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Worker threads; each runs its own event loop.
    pub workers: NonZeroUsize,
    /// How long requests under way may take to finish when the server stops.
    pub shutdown_timeout: Duration,
    /// How long an idle connection stays open.
    pub keep_alive: Duration,
}

/// Binds `addr`; port 0 takes a free one. Must be called within a Tokio runtime.
///
/// # Errors
/// A sentence that names the address and says what to do.
pub fn listen(addr: SocketAddr) -> Result<TcpListener, String> {
    bind(addr).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{addr} is already in use: stop the other program or set http.bind to another port")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "no permission to listen on {addr}: ports below 1024 need a privilege; set http.bind to another port"
            )
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{addr} is not an address of this host: set http.bind to one that is")
        }
        _ => format!("cannot listen on {addr}: {e}"),
    })
}

fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last process's connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves until `shutdown.drain`: then readiness is withdrawn, nothing new is taken, and requests under way may finish
/// for `options.shutdown_timeout` or until `shutdown.abort`.
///
/// # Errors
/// If the operating system refuses the socket or the threads.
pub async fn serve(
    state: Arc<HttpState>,
    listener: TcpListener,
    options: ServeOptions,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let addr = listener.local_addr()?;
    let ready = Arc::clone(&state.ready);
    let mut server = HttpServer::new(move || app(&state))
        .workers(options.workers.get())
        .keep_alive(options.keep_alive)
        .shutdown_timeout(options.shutdown_timeout.as_secs())
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    tracing::info!(%addr, workers = options.workers, "serving http");
    tokio::select! {
        ended = &mut server => return ended,
        () = shutdown.drain.cancelled() => ready.store(false, Ordering::Relaxed),
    }
    let stop = async {
        tokio::select! {
            () = handle.stop(true) => {}
            () = shutdown.abort.cancelled() => handle.stop(false).await,
        }
    };
    let (served, ()) = tokio::join!(server, stop);
    tracing::info!(%addr, "http stopped");
    served
}
