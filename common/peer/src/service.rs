//! The listening side of the gRPC service, for the connections of one line.
//!
//! ```text
//!   connection ─ Exchange: hello ─▶ judged, seat taken ─▶ welcome
//!                          chunk, chunk, … ─▶ messages ─▶ handler
//!              ─ Call: question ─▶ handler ─▶ reply          as whom the hello said
//! ```

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::chunk::Assembly;
use crate::connection::Caller;
use crate::handler::{Refusal, Speaker};
use crate::lane::Line;
use crate::proto::frame::Content;
use crate::proto::peer_server::Peer;
use crate::proto::reply::Outcome;
use crate::proto::{Frame, Hello, Question, Reply, Welcome};
use crate::seats::Seat;
use crate::shared::Shared;

/// Serves the connections of one line.
pub(crate) struct Service {
    shared: Arc<Shared>,
    line: Line,
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>, line: Line) -> Self {
        Self { shared, line }
    }

    /// Decides whether to believe a hello, and gives it its seat.
    fn greet(&self, hello: &Hello, caller: &Caller) -> Result<(Speaker, Seat), Status> {
        let refuse = |reason: String| {
            self.shared.tell_stranger(caller.remote.ip(), &reason);
            Status::failed_precondition(reason)
        };
        let (instance, version) =
            self.shared.identity.judge(hello).map_err(|wrong| refuse(wrong.to_string()))?;
        if let Some(security) = &self.shared.security {
            let certificate = caller.certificate.as_ref();
            if !certificate.is_some_and(|certificate| security.vouches(certificate, instance.node)) {
                return Err(refuse(format!("the certificate is not for {}", instance.node)));
            }
        }
        if caller.greeting.get().is_some() {
            return Err(refuse("a second hello on one connection".into()));
        }
        let seat = self.shared.seats.take(instance, self.line).map_err(|newest| {
            refuse(format!("{instance} is over: {}#{} has connected", instance.node, newest.0))
        })?;
        let speaker = Speaker { instance, version };
        // Two hellos at once: the later one has the seat, and the connection keeps the earlier one's name.
        let _ = caller.greeting.set((speaker, seat.clone()));
        Ok((speaker, seat))
    }
}

#[async_trait]
impl Peer for Service {
    type ExchangeStream = ReceiverStream<Result<Welcome, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let caller = caller(&request)?;
        let mut frames = request.into_inner();
        let first = timeout(self.shared.limits.connect_within(), frames.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        let Some(Content::Hello(hello)) = first.and_then(|frame| frame.content) else {
            return Err(Status::invalid_argument("the first frame has to be a hello"));
        };
        let (speaker, seat) = self.greet(&hello, &caller)?;
        let (replies, sent) = mpsc::channel(2);
        let incarnation = self.shared.identity.me.incarnation.0;
        let welcome = Welcome { version: speaker.version, incarnation };
        replies.try_send(Ok(welcome)).expect("the channel is new");
        let (shared, line) = (self.shared.clone(), self.line);
        tokio::spawn(async move {
            if let Err(status) = listen(&shared, line, speaker, seat, frames).await {
                // Nobody hears it when the connection is gone.
                let _ = replies.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(sent)))
    }

    async fn call(&self, request: Request<Question>) -> Result<Response<Reply>, Status> {
        let caller = caller(&request)?;
        let Some((speaker, seat)) = caller.greeting.get() else {
            return Err(Status::failed_precondition("a question before the hello"));
        };
        let (filter, node) = (&self.shared.filter, speaker.instance.node);
        if filter.swallows_from(node) {
            return pending().await;
        }
        let Question { kind, body } = request.into_inner();
        let outcome = if seat.act(|| ()) {
            self.answer(*speaker, kind, body).await
        } else {
            Outcome::Refused(format!("{} is over, or has connected anew", speaker.instance))
        };
        filter.pass_to(node).await;
        Ok(Response::new(Reply { outcome: Some(outcome) }))
    }
}

impl Service {
    async fn answer(&self, speaker: Speaker, kind: String, body: bytes::Bytes) -> Outcome {
        let bytes_max = self.shared.limits.call_bytes_max;
        match self.shared.handler.call(speaker, &kind, body).await {
            Ok(body) if body.len() > bytes_max => {
                Outcome::Failed(format!("an answer of {} bytes, for at most {bytes_max}", body.len()))
            }
            Ok(body) => Outcome::Body(body),
            Err(Refusal::UnknownKind) => Outcome::UnknownKind(kind),
            Err(Refusal::Failed(reason)) => Outcome::Failed(reason),
        }
    }
}

fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    caller.ok_or_else(|| Status::internal("a connection without its caller"))
}

/// Takes the chunks of one connection until it ends or loses its seat.
async fn listen(
    shared: &Shared,
    line: Line,
    speaker: Speaker,
    seat: Seat,
    mut frames: Streaming<Frame>,
) -> Result<(), Status> {
    let bytes_max = line.lane().map_or(0, |lane| shared.limits.bytes_max(lane));
    let mut assembly = Assembly::new(bytes_max);
    let mut room = None;
    let mut watched = seat.clone();
    let mut lost = pin!(watched.lost());
    let taken = || Status::aborted(format!("{} has connected anew", speaker.instance.node));
    loop {
        let frame = tokio::select! {
            biased;
            () = &mut lost => return Err(taken()),
            frame = frames.message() => frame?,
        };
        let Some(frame) = frame else { return Ok(()) };
        let (chunk, lane) = match (frame.content, line.lane()) {
            (Some(Content::Chunk(chunk)), Some(lane)) => (chunk, lane),
            (None, _) => {
                // A later version's, which this one passes over.
                shared.frames_unknown.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            _ => return Err(Status::invalid_argument("only chunks follow a hello, and only on a lane")),
        };
        // The beat lane waits for nobody's blocks; its messages are short.
        if let (Some(bytes), Line::Data) = (assembly.begins(&chunk), line) {
            let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
            room = tokio::select! {
                () = &mut lost => return Err(taken()),
                room = shared.room.acquire_many(kib) => room.ok(),
            };
        }
        let message = assembly.take(chunk).map_err(|wrong| {
            tracing::warn!(from = %speaker.instance, %line, %wrong, "a node sends what is no message");
            Status::invalid_argument(wrong.to_string())
        })?;
        let Some(message) = message else { continue };
        room.take();
        let node = speaker.instance.node;
        let heard =
            shared.filter.swallows_from(node) || seat.act(|| shared.handler.message(speaker, lane, message));
        if !heard {
            return Err(taken());
        }
    }
}
