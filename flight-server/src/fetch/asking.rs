//! The executor's end: asks the coordinator whether a ticket may be redeemed here, and tells it when its reader is done. Next:
//! `door.rs`.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use windrow_auth::Login;
use windrow_core::Result;
use windrow_executor::timer;

use super::{Answer, Ask, REDEEM_PATH};
use crate::control::codec::PostcardCodec;
use crate::security::Dialer;

/// How long the coordinator may take to answer. A client waits meanwhile, and has another way.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long the end of a reader is told.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Bytes of the largest answer: a schema of very many columns.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// An executor's way to ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    channel: Channel,
    dialer: Dialer,
    /// The executor's own address.
    address: String,
}

impl Asking {
    /// Asks `scheduler` (`host:port`) for the executor that others reach at `address`. Connects with the first question, and again when
    /// that is lost.
    ///
    /// # Errors
    /// `InvalidConfig` if `scheduler` is not an address.
    pub(crate) fn new(scheduler: &str, dialer: Dialer, address: String) -> Result<Self> {
        let endpoint = dialer.endpoint(scheduler)?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(2)).tcp_nodelay(true);
        let channel =
            endpoint.http2_keep_alive_interval(Duration::from_secs(2)).keep_alive_timeout(Duration::from_secs(5)).connect_lazy();
        Ok(Self { channel, dialer, address })
    }

    /// Asks for the rows of a ticket.
    ///
    /// # Errors
    /// The coordinator's refusal; `UNAVAILABLE` if it does not answer in time.
    pub(crate) async fn ask(&self, ticket: Bytes, login: Login) -> Result<(Answer, Granted), Status> {
        let (asks, queue) = mpsc::channel(2);
        let ask = Ask::Redeem { ticket, login, address: self.address.clone() };
        asks.try_send(ask).map_err(|_full| Status::internal("a new queue is full"))?;
        let asking = async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let mut request = Request::new(ReceiverStream::new(queue));
            self.dialer.sign(&mut request)?;
            let codec = PostcardCodec::<Ask, Answer>::default();
            let mut answers = grpc.streaming(request, PathAndQuery::from_static(REDEEM_PATH), codec).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(|answer| (answer, answers)).ok_or_else(|| Status::unavailable("the scheduler did not answer"))
        };
        let answered = timer::deadline(ANSWER_WITHIN, asking).await;
        let (answer, answers) = answered.unwrap_or_else(|| Err(Status::unavailable("the scheduler did not answer in time")))?;
        Ok((answer, Granted { asks, answers }))
    }
}

/// The right to read what was granted, for as long as it is held. Dropped, its reader has left early.
#[derive(Debug)]
pub(crate) struct Granted {
    asks: mpsc::Sender<Ask>,
    answers: Streaming<Answer>,
}

impl Granted {
    /// All rows have left.
    pub(crate) async fn all_left(mut self) {
        let telling = async {
            if self.asks.send(Ask::AllLeft).await.is_ok() {
                // The coordinator ends the stream when it has heard it. If that is lost, the reader counts as one who left.
                let _ = self.answers.message().await;
            }
        };
        let _ = timer::deadline(END_WITHIN, telling).await;
    }
}
