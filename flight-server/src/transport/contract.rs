//! What every transport must do, as functions that each implementation is passed to.
