//! Who calls, and whether they may: in front of every service of a listener, never in a single method.
//!
//! ```text
//! access.rs       what a listener asks of callers        credentials.rs   a header becomes a principal
//! layer.rs        the one layer that asks                caller.rs        what it found, for the services behind it
//! dial.rs         how this process calls others          tls.rs           certificates, read again when they change
//! audit.rs        a line for each call of a client       redact.rs        what of a statement may stand in it
//! audited.rs      answers, counted until they end        certified.rs     whom a certificate names
//! ```
//!
//! What a principal may do is decided by `windrow_auth::authorize` alone. Next: `control/mod.rs`.

mod access;
mod audit;
mod audited;
mod caller;
pub(crate) mod certified;
mod credentials;
mod dial;
mod layer;
mod redact;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

pub(crate) use access::allowed;
pub use access::{Access, stores};
pub(crate) use audit::{AuditLog, Record, record_of};
pub(crate) use caller::{Caller, caller_of};
pub(crate) use credentials::OWNER;
pub use credentials::{Credentials, owner_token};
pub use dial::{Dialer, client_tls};
pub(crate) use layer::{AuthenticateLayer, Serves};

/// An executor's credential.
#[cfg(test)]
pub(crate) fn executor_pass_for_tests(key: &windrow_auth::ClusterKey) -> String {
    use credentials::{executor_pass, executor_sealer};
    executor_pass(&executor_sealer(key), windrow_core::clock::unix_millis()).unwrap()
}
