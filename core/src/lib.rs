//! The vocabulary of Windrow: what a query becomes on its way from text to rows, as plain data.
//!
//! Everything here is data or a trait. Nothing links DataFusion, Arrow, tonic or an async runtime, so that the scheduler, which
//! depends on this crate alone, builds and tests in seconds. Read in the order of a query's life: [`stage`] (what the planner
//! makes), [`task`] (what the scheduler hands out), [`message`] (what travels between coordinator and executor), [`failure`]
//! (what can go wrong, as one closed enum), [`error`] (what the user is told).

#![deny(clippy::disallowed_types, clippy::iter_over_hash_type)]

pub mod cases;
pub mod clock;
pub mod config;
pub mod error;
pub mod failure;
pub mod ids;
pub mod message;
pub mod network;
pub mod rand;
pub mod stage;
pub mod task;
pub mod time_limit;
pub mod transport;

pub use error::{Error, ErrorKind, Result};
pub use failure::{Failed, Failure};
