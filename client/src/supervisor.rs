//! Starts an executor process and starts it again when it dies. Pure decisions are in `restart.rs`.
