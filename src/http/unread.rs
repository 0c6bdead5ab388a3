//! Ends connections whose chunked request body was answered before it was read.
//!
//! The HTTP library reads on for as long as such a body is unfinished, without a time-out, once its
//! reader has dropped it; a client that falls silent would keep its connection for ever. It closes the
//! connection soon after the answer if the reader still holds the body. So the middleware shares the
//! body with its reader and lets the answer hold it until it is sent. (Seen with `actix-http` 3.20; a
//! body with a `Content-Length` is ended by the library itself.)

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpMessage,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    web::Bytes,
};
use futures_util::Stream;

/// A chunked body that its reader and the middleware hold together.
#[derive(Clone)]
pub(crate) struct Chunked(Rc<RefCell<Inner>>);

struct Inner {
    payload: Payload,
    ended: bool,
}

impl Chunked {
    /// Shares the body of `req` if it is chunked.
    pub(crate) fn share(req: &mut ServiceRequest) -> Option<Self> {
        if !req.chunked().unwrap_or(false) {
            return None;
        }
        let shared = Self(Rc::new(RefCell::new(Inner { payload: req.take_payload(), ended: false })));
        req.set_payload(Payload::Stream { payload: Box::pin(shared.clone()) });
        Some(shared)
    }

    /// Lets the answer hold the body, unless all of it was read.
    pub(crate) fn hold_until_sent(self, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        if self.0.borrow().ended {
            return response;
        }
        response.map_body(|_, body| BoxBody::new(Holding { body, _unread: self }))
    }
}

impl Stream for Chunked {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.0.borrow_mut();
        let next = Pin::new(&mut inner.payload).poll_next(cx);
        inner.ended |= matches!(next, Poll::Ready(None));
        next
    }
}

/// The body of an answer, and the unread body of its request.
struct Holding {
    body: BoxBody,
    _unread: Chunked,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}
