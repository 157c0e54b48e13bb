//! What a client sends in one call ends in time and has a size: each message comes within some minutes, all of them within hours, and
//! together they are not endless. Next: `broken_off.rs`.
//!
//! It stands in front of decoding, where a message that comes a byte at a time would be waited for as long as its client likes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use windrow_core::config::ConnectionsConfig;
use windrow_core::{Error, ErrorKind};
use windrow_executor::timer;

use crate::wire::to_status;

/// Bytes in front of each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A request's body, bounded.
pub(crate) struct Bounded {
    inner: Body,
    limits: ConnectionsConfig,
    received: u64,
    message: Message,
    /// Runs while more of a message is waited for, and until all messages are there.
    waiting: Option<Wait>,
    over: Option<Wait>,
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Bounded {
    /// `body` within `limits`.
    pub(crate) fn body(body: Body, limits: &ConnectionsConfig) -> Body {
        let limits = limits.clone();
        Body::new(Self { inner: body, limits, received: 0, message: Message::default(), waiting: None, over: None })
    }

    /// Why nothing more is waited for.
    fn is_late(&mut self, context: &mut Context<'_>) -> Option<Status> {
        let is_over = |wait: &mut Option<Wait>, limit: Duration, context: &mut Context<'_>| {
            !limit.is_zero() && wait.get_or_insert_with(|| Box::pin(timer::sleep(limit))).as_mut().poll(context).is_ready()
        };
        if is_over(&mut self.waiting, self.limits.message, context) {
            return Some(late("the next message of a request", self.limits.message, "connections.message"));
        }
        let is_late = is_over(&mut self.over, self.limits.request, context);
        is_late.then(|| late("the end of a request", self.limits.request, "connections.request"))
    }

    /// Why what came is too much.
    fn is_too_large(&mut self, data: &Bytes) -> Option<Status> {
        self.received = self.received.saturating_add(data.len() as u64);
        if self.message.take(data) {
            self.waiting = None;
        }
        let most = self.limits.request_bytes;
        (most.as_u64() > 0 && self.received > most.as_u64()).then(|| {
            let what = format!("a request has more than {most}, which is connections.request_bytes");
            to_status(&Error::new(ErrorKind::ResourcesExhausted, what).with_help("send it in several parts"))
        })
    }
}

fn late(what: &str, limit: Duration, setting: &str) -> Status {
    let what = format!("{what} did not come within {} s, which is {setting}", limit.as_secs_f64());
    to_status(&Error::new(ErrorKind::ResourcesExhausted, what).with_help("send it again, faster or in several parts"))
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Pending => match this.is_late(context) {
                Some(late) => Poll::Ready(Some(Err(late))),
                None => Poll::Pending,
            },
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref().and_then(|data| this.is_too_large(data)) {
                Some(too_large) => Poll::Ready(Some(Err(too_large))),
                None => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// How much of a message has come.
#[derive(Debug, Default)]
struct Message {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    begun: usize,
    /// Bytes of the message that have not.
    left: u64,
}

impl Message {
    /// Takes in what came; whether a message ended in it.
    fn take(&mut self, data: &Bytes) -> bool {
        let (mut data, mut has_ended) = (&**data, false);
        while data.has_remaining() || (self.begun == PREFIX && self.left == 0) {
            if self.begun < PREFIX {
                if let Some(place) = self.prefix.get_mut(self.begun) {
                    *place = data.get_u8();
                }
                self.begun += 1;
                if self.begun == PREFIX {
                    let [_, length @ ..] = self.prefix;
                    self.left = u64::from(u32::from_be_bytes(length));
                }
                continue;
            }
            let part = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.remaining());
            data.advance(part);
            self.left -= part as u64;
            if self.left == 0 {
                (self.begun, has_ended) = (0, true);
            }
        }
        has_ended
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::StreamExt;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::Code;

    use super::*;
    use crate::testing::PATIENCE;

    fn bytes_of(length: u8) -> Vec<u8> {
        [&[0, 0, 0, 0, length][..], &vec![7; usize::from(length)]].concat()
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let all = [bytes_of(3), bytes_of(0), bytes_of(200)].concat();
        for size in 1..all.len() {
            let mut message = Message::default();
            let ends: Vec<usize> = (0..)
                .map_while(|index| all.get(index * size..).filter(|rest| !rest.is_empty()).map(|rest| (index, rest)))
                .filter(|(_, rest)| message.take(&Bytes::copy_from_slice(&rest[..size.min(rest.len())])))
                .map(|(index, _)| index)
                .collect();
            let mut expected: Vec<usize> = [8, 13, 218].map(|end: usize| (end - 1) / size).into();
            expected.dedup();
            assert_eq!(ends, expected, "in parts of {size}");
            assert_eq!((message.begun, message.left), (0, 0));
        }
    }

    /// A request whose parts the test sends.
    fn request(limits: ConnectionsConfig) -> (mpsc::Sender<Vec<u8>>, Body) {
        let (sender, parts) = mpsc::channel(8);
        let parts = ReceiverStream::new(parts).map(|part: Vec<u8>| Ok::<_, Status>(Frame::data(Bytes::from(part))));
        (sender, Bounded::body(Body::new(StreamBody::new(parts)), &limits))
    }

    async fn end_of(body: Body) -> Result<Bytes, Status> {
        timer::deadline(PATIENCE, body.collect()).await.expect("an end").map(|all| all.to_bytes())
    }

    #[tokio::test]
    async fn security_m15_what_comes_too_slowly_or_is_too_much_ends_with_an_error() {
        let short = Duration::from_millis(50);
        let none = ConnectionsConfig { message: Duration::ZERO, request: Duration::ZERO, ..ConnectionsConfig::default() };
        let mut cases = windrow_core::cases::Cases::of("M15");
        let limited = [
            ("nothing is sent", vec![], ConnectionsConfig { message: short, ..none.clone() }, "connections.message"),
            ("half a message", vec![vec![0, 0, 0]], ConnectionsConfig { message: short, ..none.clone() }, "connections.message"),
            ("no end", vec![bytes_of(3)], ConnectionsConfig { request: short, ..none.clone() }, "connections.request"),
            (
                "too many bytes",
                vec![bytes_of(90); 3],
                ConnectionsConfig { request_bytes: "200B".parse().unwrap(), ..none.clone() },
                "connections.request_bytes",
            ),
        ];
        for (name, parts, limits, says) in limited {
            let (sender, body) = request(limits);
            for part in parts {
                sender.send(part).await.unwrap();
            }
            let status = end_of(body).await.expect_err(name);
            assert_eq!(status.code(), Code::ResourceExhausted, "{name}");
            assert!(status.message().contains(says), "{name}: {}", status.message());
            cases.case(name);
        }
        cases.are(4);
    }

    /// A byte at a time: what counts is the message, not that something comes.
    #[tokio::test]
    async fn security_m15_a_message_that_trickles_in_is_given_up() {
        let limits = ConnectionsConfig { message: Duration::from_millis(100), ..ConnectionsConfig::default() };
        let (sender, body) = request(limits);
        let trickle = async {
            // 16 MiB are promised: a complete message would begin the time anew, and this one never is.
            sender.send(vec![0, 1, 0, 0, 0]).await.unwrap();
            let mut sent = 0_u32;
            while sender.send(vec![0]).await.is_ok() {
                timer::sleep(Duration::from_millis(10)).await;
                sent += 1;
            }
            sent
        };
        let (sent, end) = tokio::join!(trickle, end_of(body));
        assert!(end.unwrap_err().message().contains("connections.message") && sent > 1);
    }

    #[tokio::test]
    async fn what_is_complete_in_time_passes_as_it_is() {
        let limits = ConnectionsConfig { message: PATIENCE, request: PATIENCE, ..ConnectionsConfig::default() };
        let (sender, body) = request(limits);
        let all = [bytes_of(3), bytes_of(0), bytes_of(200)].concat();
        let send = async {
            for part in all.chunks(7) {
                sender.send(part.to_vec()).await.unwrap();
            }
            drop(sender);
        };
        let ((), read) = tokio::join!(send, end_of(body));
        assert_eq!(read.unwrap(), all);
    }
}
