//! A TCP proxy before a server, whose connections can be broken, or go dead as when a cable is pulled; it can also lead
//! elsewhere from now on, or be as slow as a long way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{mpsc::unbounded_channel, watch},
    time::{Instant, sleep_until},
};

/// Forwards a free port of loopback to a server until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    cuts: watch::Sender<u32>,
    open: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target`, a port of loopback.
    pub(crate) async fn start(target: u16) -> Self {
        Self::start_far(target, Duration::ZERO).await
    }

    /// The same, with `delay` for what goes either way.
    pub(crate) async fn start_far(target: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, _) = watch::channel(0);
        let (open, _) = watch::channel(true);
        let target = Arc::new(AtomicU16::new(target));

        let (cut, gate, to) = (cuts.clone(), open.clone(), Arc::clone(&target));
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let to = to.load(Ordering::SeqCst);
                tokio::spawn(forward(near, to, delay, cut.subscribe(), gate.subscribe()));
            }
        });
        Self { port, target, cuts, open, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to another server; those that stand stay where they are.
    pub(crate) fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::SeqCst);
    }

    /// Breaks every connection that stands; new ones are let through.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    /// From now on nothing gets through and nobody is told. Connections that stand stay dead for ever, as behind a
    /// firewall that forgot them; new ones hang until [`Proxy::heal`].
    pub(crate) fn silence(&self) {
        self.open.send_replace(false);
    }

    /// Lets new connections through, and those that hang.
    pub(crate) fn heal(&self) {
        self.open.send_replace(true);
    }
}

async fn forward(
    mut near: TcpStream,
    target: u16,
    delay: Duration,
    mut cut: watch::Receiver<u32>,
    mut open: watch::Receiver<bool>,
) {
    let forwarded = async {
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        let copied = async {
            if delay.is_zero() {
                drop(copy_bidirectional(&mut near, &mut far).await);
                return;
            }
            let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
            tokio::select! {
                () = carry(from_near, to_far, delay) => {}
                () = carry(from_far, to_near, delay) => {}
            }
        };
        let silenced = tokio::select! {
            () = copied => false,
            closed = open.wait_for(|open| !*open) => closed.is_ok(),
        };
        if silenced {
            // Both ends stay open, and no byte moves.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = forwarded => {}
        _ = cut.changed() => {}
    }
}

/// Carries bytes, each for this long, until one end is closed.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (tx, mut rx) = unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if tx.send((Instant::now() + delay, buffer[..n].to_vec())).is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = rx.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
