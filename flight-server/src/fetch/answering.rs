//! The coordinator's end: whoever keeps the results decides, and holds the reader's place until the executor says that it is done, or
//! is not heard of any more. Next: `by_caller.rs`.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::{Status, Streaming};
use windrow_executor::timer;

use super::{Answer, Ask};
use crate::security::Record;
use crate::sql::{Desk, Reader};

/// How long an executor may take to say what it asks.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Where the answer to a question is.
enum Step {
    Asked(Desk, Streaming<Ask>, Record),
    Given(Reader, Streaming<Ask>),
    Over,
}

/// Answers one question, and waits for the end of its reader.
pub(crate) fn answer(desk: Desk, asks: Streaming<Ask>, record: Record) -> BoxStream<'static, Result<Answer, Status>> {
    stream::unfold(Step::Asked(desk, asks, record), |step| async move {
        match step {
            Step::Asked(desk, asks, record) => Some(match begin(&desk, asks, &record).await {
                Ok((answer, next)) => (Ok(answer), next),
                Err(refused) => (Err(refused), Step::Over),
            }),
            Step::Given(mut reader, mut asks) => {
                if let Ok(Some(Ask::AllLeft)) = asks.message().await {
                    reader.all_left();
                }
                None
            }
            Step::Over => None,
        }
    })
    .boxed()
}

async fn begin(desk: &Desk, mut asks: Streaming<Ask>, record: &Record) -> Result<(Answer, Step), Status> {
    let asked = timer::deadline(ASK_WITHIN, asks.message()).await;
    match asked.unwrap_or_else(|| Err(Status::deadline_exceeded("nothing was asked")))? {
        Some(Ask::Redeem { ticket, login, address }) => {
            // The executor asks, and the client is who reads.
            record.is("fetch");
            record.by(&login.principal);
            let (answer, reader) = desk.give(&ticket, &login, &address).await?;
            Ok((answer, Step::Given(reader, asks)))
        }
        _ => Err(Status::invalid_argument("a reader begins with its ticket")),
    }
}
