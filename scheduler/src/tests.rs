//! The scheduler from outside: events in, actions out, and `check()` after each.
