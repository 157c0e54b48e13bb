//! Who may do what: principals, credentials, tickets.
