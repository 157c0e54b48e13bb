//! Who makes a call, as the layer found out and the services behind it ask. Next: `dial.rs`.

use tonic::{Extensions, Status};
use windrow_auth::{Login, Principal};

use crate::listener::Peer;

/// Who makes a call.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who it is.
    pub(crate) principal: Principal,
    /// The login that its token names, if it has one: it names a session.
    pub(crate) login: Option<Login>,
    /// The connection.
    pub(crate) peer: Peer,
}

/// The caller that the layer left in the extensions of a call.
///
/// # Errors
/// `Internal` if no layer was there, which is a bug: nothing is served then.
pub(crate) fn caller_of(extensions: &Extensions) -> Result<Caller, Status> {
    extensions.get::<Caller>().cloned().ok_or_else(|| Status::internal("a call that nobody has authenticated"))
}
