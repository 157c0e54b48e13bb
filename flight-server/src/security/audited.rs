//! Requests and answers of calls that are written down: their bytes are counted as they pass, and how the answer ends is noted.
//! Next: `access.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;

use super::audit::{Counts, Record};

/// `request`, whose bytes count as received.
pub(super) fn counted_request(request: Request<Body>, record: &Record) -> Request<Body> {
    let Some(counts) = record.counts() else { return request };
    request.map(|body| Body::new(body.inspect_frame(move |frame| count(frame, &counts))))
}

fn count(frame: &Frame<Bytes>, counts: &Counts) {
    if let Some(data) = frame.data_ref() {
        counts.received.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}

/// `answer`, at whose end the record says how the call went. If it has no end, because its client left, the record says that.
pub(super) fn counted_answer(answer: Response<Body>, record: Record) -> Response<Body> {
    if let Some(status) = Status::from_header_map(answer.headers()) {
        // It failed before it began, and has no body.
        record.ended(Some(&status));
        return answer;
    }
    let Some(counts) = record.counts() else { return answer };
    answer.map(|inner| Body::new(Answer { inner, record, counts, is_over: false }))
}

/// The body of an answer.
struct Answer {
    inner: Body,
    record: Record,
    counts: Arc<Counts>,
    is_over: bool,
}

impl Answer {
    /// Its first end counts: after trailers there comes another, which says nothing.
    fn over(&mut self, status: Option<&Status>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.record.ended(status);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            None => self.over(None),
            Some(Err(status)) => self.over(Some(status)),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.counts.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.over(Status::from_header_map(trailers).as_ref());
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
