//! Who may do what: principals and roles, the credentials that prove them, and values that only this cluster can have sealed.
//!
//! Read `principal.rs` (who), `authorize.rs` (may what, the only place that decides it), then how somebody proves who they are:
//! `password.rs`, `bearer.rs`, `jwt.rs`, slowed down by `throttle.rs`. `key.rs` is the secret that the processes of a cluster share, and
//! `seal.rs` what is made with it. Files with secrets are read and written by `secret_file.rs` alone. Next: `flight-server/src/lib.rs`,
//! which asks all of it.
//!
//! It links neither DataFusion, Arrow, tonic nor tokio. What blocks (Argon2, files) says so.

mod authorize;
mod bearer;
mod certificate;
mod jwt;
mod key;
mod listed;
mod password;
mod principal;
mod seal;
mod secret_file;
mod throttle;

pub use authorize::{Verb, authorize, authorize_stop, authorize_use, unknown};
pub use bearer::{Login, Logins, TokenEntry, Tokens};
pub use certificate::{DevelopmentCa, EXECUTOR_NAME, make_development_ca};
pub use jwt::{Jwt, JwtOptions};
pub use key::{ClusterKey, file_of_port, state_folder};
pub use password::Passwords;
pub use principal::{Principal, Role, check_name};
pub use seal::{SealError, Sealer};
pub use secret_file::{read_private, write_private};
pub use throttle::{Attempt, Throttle};

#[cfg(test)]
mod redacted;
