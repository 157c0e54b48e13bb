//! What an executor asks of the coordinator about a ticket, and what it hears: one stream each way for each reader, which ends with the
//! reader. Next: `asking.rs`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use windrow_auth::Login;
use windrow_core::task::InputGroup;

/// The path of the call, beside that of the control stream.
pub(crate) const REDEEM_PATH: &str = "/windrow.Control/Redeem";

/// What an executor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// First: somebody wants to read here.
    Redeem {
        /// The sealed ticket.
        ticket: Bytes,
        /// Who, as the executor has verified.
        login: Login,
        /// The executor's own address, as it registered it.
        address: String,
    },
    /// Last: all rows have left.
    AllLeft,
}

/// What the coordinator says, once, unless it refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The schema that the rows are sent with, as an IPC message.
    pub(crate) schema: Bytes,
    /// Where the rows are, in their order: all of it at the executor that asks.
    pub(crate) groups: Vec<InputGroup>,
}
