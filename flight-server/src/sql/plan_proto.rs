//! The command with which clients of ours ask for a statement over frames, where plans are taken. Next: `commands.rs`.

use arrow_flight::sql::{Any, ProstMessageExt};
use bytes::Bytes;
use prost::Message;
use windrow_core::{Error, Result};

/// A statement, and the plans that it names as tables. Those are bytes which only the same version of Windrow reads.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CommandPlan {
    /// The version of Windrow that made it.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The statement.
    #[prost(string, tag = "2")]
    pub text: String,
    /// What `windrow_planner::frames_to_bytes` made of the plans.
    #[prost(bytes = "bytes", tag = "3")]
    pub frames: Bytes,
}

impl CommandPlan {
    /// A command of this version.
    #[must_use]
    pub fn new(text: String, frames: Bytes) -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), text, frames }
    }

    /// Refuses the command of another version.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(super) fn check_version(&self) -> Result<()> {
        let own = env!("CARGO_PKG_VERSION");
        if self.version == own {
            return Ok(());
        }
        // What a client says of itself may be anything.
        let theirs: String = self.version.chars().filter(|c| !c.is_control()).take(40).collect();
        let error = Error::unsupported(format!("the plan was made by version {theirs} of Windrow, and this is {own}"));
        Err(error.with_help("use the same version on both sides, or send SQL"))
    }
}

impl ProstMessageExt for CommandPlan {
    fn type_url() -> &'static str {
        "type.googleapis.com/windrow.CommandPlan"
    }

    fn as_any(&self) -> Any {
        Any { type_url: Self::type_url().to_owned(), value: self.encode_to_vec().into() }
    }
}
