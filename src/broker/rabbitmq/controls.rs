//! The exchange of broadcasts, which this program can do without: a user may lack the right to it.

use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeUnbindOptions},
    types::FieldTable,
};
use tokio::sync::Mutex;

use super::link::{ACCESS_REFUSED, Link, NOT_FOUND, Names, PRECONDITION_FAILED, close, code, unavailable};
use crate::broker::{
    BrokerError,
    aside::{Aside, Part},
};

/// A channel of its own for saying: a refusal closes the channel, and wake-ups must not go with it.
#[derive(Default)]
pub(super) struct Controls(Mutex<Option<Channel>>);

impl Controls {
    /// The next call opens a new channel: this one does not answer.
    pub(super) fn forget(&self) {
        if let Ok(mut held) = self.0.try_lock() {
            *held = None;
        }
    }

    /// Publishes to every listener's queue; that nobody listens is no failure. A channel that turns
    /// out to be broken is replaced once: the server may have been restarted since the last call.
    pub(super) async fn say(&self, link: &Link, names: &Names, aside: &Aside, said: &[u8]) -> Result<(), BrokerError> {
        let mut held = self.0.lock().await;
        let mut again = held.is_some();
        loop {
            let channel = match held.as_ref().filter(|c| c.status().connected()) {
                Some(channel) => channel.clone(),
                None => {
                    let opened = open(link, names).await.map_err(|e| refused(&e, names, aside, Part::Saying))?;
                    let confirms = opened.confirm_select(ConfirmSelectOptions::default()).await;
                    confirms.map_err(|e| unavailable(&e))?;
                    held.insert(opened).clone()
                }
            };
            match publish(&channel, names, said).await {
                Ok(()) => {
                    aside.admit_part(Part::Saying);
                    return Ok(());
                }
                Err(e) => {
                    *held = None;
                    if is_refusal(&e) || !std::mem::take(&mut again) {
                        return Err(refused(&e, names, aside, Part::Saying));
                    }
                }
            }
        }
    }
}

async fn publish(channel: &Channel, names: &Names, said: &[u8]) -> lapin::Result<()> {
    let (exchange, options) = (names.control(), BasicPublishOptions::default());
    let properties = BasicProperties::default();
    let sent = channel.basic_publish(exchange.as_str().into(), "".into(), options, said, properties);
    sent.await?.await.map(drop)
}

/// A channel on a connection whose server has the exchange. Who may not make it can use one that is there.
pub(super) async fn open(link: &Link, names: &Names) -> lapin::Result<Channel> {
    match declare(link, names, false).await {
        Err(e) if code(&e) == Some(ACCESS_REFUSED) => declare(link, names, true).await.map_err(|_missing| e),
        done => done,
    }
}

async fn declare(link: &Link, names: &Names, passive: bool) -> lapin::Result<Channel> {
    let channel = link.connection().await?.create_channel().await?;
    let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
    let (exchange, kind) = (names.control(), ExchangeKind::Fanout);
    channel.exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default()).await?;
    Ok(channel)
}

/// Whether there is an exchange. Makes none.
pub(super) async fn is_there(link: &Link, names: &Names) -> Result<bool, BrokerError> {
    match declare(link, names, true).await {
        Ok(channel) => {
            close(&channel).await;
            Ok(true)
        }
        Err(e) if code(&e) == Some(NOT_FOUND) => Ok(false),
        Err(e) => Err(unavailable(&e)),
    }
}

/// Whether something could be said over an exchange that is there. Undoing a binding that nobody has
/// made needs the right to write, and to read, and changes nothing.
pub(super) async fn can_say(link: &Link, names: &Names, aside: &Aside) -> Result<(), BrokerError> {
    let exchange = names.control();
    let unbind = async {
        let channel = open(link, names).await?;
        let (name, options) = (exchange.as_str(), ExchangeUnbindOptions::default());
        let key = "app.probe.nowhere".into();
        channel.exchange_unbind(name.into(), name.into(), key, options, FieldTable::default()).await?;
        close(&channel).await;
        Ok(())
    };
    match unbind.await {
        // The rights are asked for first.
        Err(e) if code(&e) == Some(NOT_FOUND) => Ok(()),
        Err(e) => Err(refused(&e, names, aside, Part::Saying)),
        Ok(()) => Ok(()),
    }
}

fn is_refusal(e: &lapin::Error) -> bool {
    code(e).is_some_and(|c| [ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED].contains(&c))
}

/// What `e` means to whoever wants to say or hear something.
pub(super) fn refused(e: &lapin::Error, names: &Names, aside: &Aside, part: Part) -> BrokerError {
    if !is_refusal(e) {
        return unavailable(e);
    }
    let exchange = names.control();
    let what = if code(e) == Some(PRECONDITION_FAILED) {
        format!("delete the exchange `{exchange}`, and it is made again")
    } else {
        format!("give the user in `broker.url` the rights that README lists for the exchange `{exchange}`")
    };
    aside.refuse_part(part, format!("RabbitMQ refuses them ({e}); {what}"))
}
