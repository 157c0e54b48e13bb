//! How long a statement may take, which of the settings says so, and the error of one that took longer. Next: `failure.rs`.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// The session's setting.
pub const OF_SESSION: &str = "windrow.query.time_limit";

/// The scheduler's setting, which no session exceeds.
pub const OF_SCHEDULER: &str = "scheduler.time_limit_max";

/// How long a statement may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit {
    limit: Duration,
    /// The setting that it comes from.
    setting: &'static str,
}

impl TimeLimit {
    /// The shorter of what a session asks for and what the scheduler allows; 0 is no limit in either.
    #[must_use]
    pub fn of(session: Duration, most: Duration) -> Option<Self> {
        let both = [(session, OF_SESSION), (most, OF_SCHEDULER)].into_iter().filter(|(limit, _)| !limit.is_zero());
        both.min_by_key(|(limit, _)| *limit).map(|(limit, setting)| Self { limit, setting })
    }

    /// The time.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The error of a statement that took longer. Its source is [`Exceeded`].
    #[must_use]
    pub fn exceeded(&self) -> Error {
        let Self { limit, setting } = self;
        let message = format!("the statement ran for {}, which is {setting}, and was ended", humantime::format_duration(*limit));
        let help = if *setting == OF_SESSION {
            "allow it more with SET windrow.query.time_limit = '1h' ('none' is no limit), or ask for less"
        } else {
            "ask for less, or have the server's administrator raise it"
        };
        Error::new(ErrorKind::ResourcesExhausted, message).with_help(help).with_source(Exceeded)
    }
}

/// The cause of an error of [`TimeLimit::exceeded`]: the server ended the statement, and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded;

impl Exceeded {
    /// Whether `error` is that of a statement that took too long.
    #[must_use]
    pub fn is_cause_of(error: &Error) -> bool {
        error.source.as_deref().is_some_and(|source| source.is::<Self>())
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit passed")
    }
}

impl std::error::Error for Exceeded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_limit_counts_and_is_named() {
        let (none, second, hour) = (Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3600));
        assert_eq!(TimeLimit::of(none, none), None);
        for (session, most, limit, named) in [
            (second, none, second, OF_SESSION),
            (second, hour, second, OF_SESSION),
            (none, hour, hour, OF_SCHEDULER),
            (hour, second, second, OF_SCHEDULER),
        ] {
            let of = TimeLimit::of(session, most).unwrap();
            let error = of.exceeded();
            assert_eq!((of.limit(), error.kind), (limit, ErrorKind::ResourcesExhausted));
            assert!(error.message.contains(named) && error.context.help.is_some(), "{error}");
            assert!(error.message.contains(&humantime::format_duration(limit).to_string()), "{error}");
            assert!(Exceeded::is_cause_of(&error));
        }
        assert!(!Exceeded::is_cause_of(&Error::new(ErrorKind::Cancelled, "cancelled")));
    }
}
