//! A TCP proxy before a server, whose connections can be broken, or go dead as when a cable is pulled.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards a free port of loopback to a server until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    cuts: watch::Sender<u32>,
    open: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target`, a port of loopback.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, _) = watch::channel(0);
        let (open, _) = watch::channel(true);

        let (cut, gate) = (cuts.clone(), open.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(forward(near, target, cut.subscribe(), gate.subscribe()));
            }
        });
        Self { port, cuts, open, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
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

async fn forward(mut near: TcpStream, target: u16, mut cut: watch::Receiver<u32>, mut open: watch::Receiver<bool>) {
    let forwarded = async {
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        let silenced = tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => false,
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

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
