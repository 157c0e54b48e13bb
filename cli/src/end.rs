//! How the program ends when it does not simply succeed, and the exit code of each end.

use std::io;

use arrow::error::ArrowError;
use windrow::{Error, ErrorKind};

use crate::{report, terminal};

/// Why a subcommand stopped. Exit codes: 0 fine, 1 the query, 2 the command line, 3 no connection, 130 interrupted.
#[derive(Debug)]
pub(crate) enum End {
    /// An error that nobody was told of yet.
    Failed(Box<Error>),
    /// A query failed and the user has read why.
    Told,
    /// The command line does not fit.
    Usage(Box<Error>),
    /// Nobody answers where the cluster should be.
    NoConnection(Box<Error>),
    /// The reader of our output is gone, or the output cannot be written.
    Output(io::Error),
    /// Ctrl-C: what ran is cancelled.
    Interrupted,
    /// SIGTERM or SIGHUP: the program leaves.
    Left,
}

impl End {
    /// Tells the user on stderr, where there is something to tell, and returns the exit code.
    pub(crate) fn tell(self) -> u8 {
        match self {
            Self::Failed(error) => {
                report::print(&error, None);
                if error.kind == ErrorKind::Cancelled { 130 } else { 1 }
            }
            Self::Told => 1,
            Self::Usage(error) => {
                report::print(&error, None);
                2
            }
            Self::NoConnection(error) => {
                report::print(&error, None);
                3
            }
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(error) => {
                terminal::note(&format!("error: the output cannot be written: {error}"));
                1
            }
            Self::Interrupted | Self::Left => 130,
        }
    }

    /// The end of a connection that could not be made.
    pub(crate) fn connecting(error: Error) -> Self {
        match error.kind {
            ErrorKind::InvalidConfig => Self::Usage(Box::new(error)),
            ErrorKind::Unavailable | ErrorKind::Denied => Self::NoConnection(Box::new(error)),
            _ => Self::Failed(Box::new(error)),
        }
    }

    /// The end of a cluster process that could not start.
    pub(crate) fn starting(error: Error) -> Self {
        match error.kind {
            ErrorKind::InvalidConfig => Self::Usage(Box::new(error)),
            _ => Self::Failed(Box::new(error)),
        }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<ArrowError> for End {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, source) => Self::Output(source),
            other => Error::new(ErrorKind::Unsupported, format!("the result cannot be written in this format: {other}"))
                .with_help("--format table writes every type")
                .into(),
        }
    }
}
