//! Who reads a result, and who waits for one: for as long as they are there it does not expire. Next: `results_calls.rs`.

use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use futures::Stream;
use windrow_core::Result;

use super::results::{Gone, Offer, Results};
use crate::results::Reading;

/// A reader of a result, here or at an executor, for as long as it is held. Dropped before it has everything it counts as one who went.
#[derive(Debug)]
pub(crate) struct Reader {
    offer: Arc<Offer>,
    partitions: Range<u32>,
    results: Weak<Results>,
    has_all: bool,
}

impl Reader {
    pub(super) fn new(results: &Arc<Results>, offer: Arc<Offer>, partitions: Range<u32>) -> Self {
        offer.state.lock().readers += 1;
        Self { offer, partitions, results: Arc::downgrade(results), has_all: false }
    }

    /// It has everything.
    pub(crate) fn all_left(&mut self) {
        self.has_all = true;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.offer.touch();
        let is_last = {
            let mut state = self.offer.state.lock();
            state.readers -= 1;
            if self.has_all {
                state.read.extend(self.partitions.clone());
            }
            state.readers == 0
        };
        let is_given_up = is_last && !self.has_all && self.offer.wish.cancel_on_drop && !self.offer.kept.is_over();
        if let Some(results) = self.results.upgrade().filter(|_| is_given_up) {
            results.release(self.offer.kept.job, Gone::Cancelled);
        }
    }
}

/// Rows on their way to one reader.
pub(super) struct Rows {
    reading: Reading,
    reader: Reader,
}

impl Rows {
    pub(super) fn new(reading: Reading, reader: Reader) -> Self {
        Self { reading, reader }
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.reading).poll_next(context);
        if self.reading.is_over() {
            self.reader.all_left();
        }
        next
    }
}

/// A result whose client waits for it, so that it does not expire. Dropped before it is handed over, it is given up.
pub(super) struct Awaited {
    offer: Arc<Offer>,
    results: Arc<Results>,
    is_handed_over: bool,
}

impl Awaited {
    pub(super) fn new(results: &Arc<Results>, offer: Arc<Offer>) -> Self {
        let is_handed_over = !offer.wish.cancel_on_drop;
        offer.state.lock().readers += 1;
        Self { offer, results: Arc::clone(results), is_handed_over }
    }

    /// The client has its answer.
    pub(super) fn hand_over(mut self) {
        self.is_handed_over = true;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.offer.touch();
        self.offer.state.lock().readers -= 1;
        if !self.is_handed_over {
            self.results.release(self.offer.kept.job, Gone::Cancelled);
        }
    }
}
