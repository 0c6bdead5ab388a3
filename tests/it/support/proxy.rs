//! A TCP proxy before a server, whose connections can be cut.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards a free port of loopback to a server until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    cuts: watch::Sender<u32>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target`, a port of loopback.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, _) = watch::channel(0);

        let tx = cuts.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = tx.subscribe();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    drop((near.set_nodelay(true), far.set_nodelay(true)));
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { port, cuts, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Breaks every connection that stands; new ones are let through.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
