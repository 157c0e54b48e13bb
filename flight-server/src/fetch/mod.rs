//! Results read from the executors that hold them, beside the coordinator's relay.
//!
//! ```text
//! client                     executor                        coordinator
//!   | DoGet(ticket), bearer    |                                |
//!   |------------------------->| is the login one of ours?      |
//!   |                          | Ask::Redeem(ticket, login) --->| whose is it, is it there, who reads it
//!   |                          |<-- Answer: schema, where ------|     (the scheduler hears that rows leave)
//!   |<------------- rows ------|                                |
//!   |                          | Ask::AllLeft, or gone -------->| the reader is gone
//! ```
//!
//! A ticket says the same to both, and is worth nothing without a login: the coordinator decides on each, whoever is asked first, so
//! that what is released, cancelled, logged out or somebody else's is nowhere to be had. An executor that does not have the rows, or is
//! not sure, answers with an error before the first message, and clients go on to the second address, which is the coordinator's.
//!
//! ```text
//! message.rs   what executor and coordinator say      asking.rs    the executor's end of that
//! door.rs      what clients may call at executors     answering.rs the coordinator's end
//! by_caller.rs clients here, executors there          location.rs  who is told to come here
//! ```

mod answering;
mod asking;
mod by_caller;
mod door;
mod location;
mod message;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::net::TcpListener;
use tonic::service::Routes;
use windrow_core::Result;
use windrow_executor::ShuffleStore;

use crate::security::{Access, Serves};
use crate::serve::{Server, start};
use crate::shuffle::ShuffleService;

pub(crate) use answering::answer;
pub(crate) use asking::Asking;
use by_caller::ByCaller;
use door::Door;
pub(crate) use door::is_for_clients;
pub(crate) use location::{Asker, Sight, is_worth_it, seen};
pub(crate) use message::{Answer, Ask, REDEEM_PATH};

/// Serves the committed segments of `store` under the name `owner`: to executors any, to clients those of results that the coordinator
/// lets them read, which `asking` asks.
///
/// # Errors
/// `Unavailable` if the listener has no address.
pub(crate) fn serve(
    listener: TcpListener,
    owner: &str,
    store: Arc<ShuffleStore>,
    access: &Access,
    asking: Asking,
) -> Result<Server> {
    let door = Door::new(Arc::clone(&store), asking, access.key());
    let routes = Routes::new(ByCaller::new(ShuffleService::server(store), door.server()));
    start(listener, owner, routes, access, Serves::Shuffle)
}
