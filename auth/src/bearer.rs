//! What a client shows with every call: a login that a handshake handed out, or a token that somebody made for it. Next: `jwt.rs`.
//!
//! A login is sealed, so that a server knows it again without a list of logins: only those that were ended early are listed. A token is
//! a random number whose hash is in a file: `id:name:role:hash:expiry`.

mod logins;
mod tokens;

pub use logins::{Login, Logins};
pub use tokens::{TokenEntry, Tokens};
