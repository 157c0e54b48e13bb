//! Messages that the crate `arrow-flight` lacks: those of sessions, which travel bare in an action's body, and the answer to
//! CreatePreparedStatement with the field that says whether the statement is an update. Next: `session_options.rs`.

use std::collections::BTreeMap;

use arrow_flight::sql::{Any, ProstMessageExt};
use bytes::Bytes;
use prost::Message;

/// A session option's value; none erases it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub(super) option_value: Option<OptionValue>,
}

/// The kinds of values.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OptionValue {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    StringList(StringListValue),
}

/// A list of texts.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StringListValue {
    #[prost(string, repeated, tag = "1")]
    pub(super) values: Vec<String>,
}

/// Sets options.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) session_options: BTreeMap<String, SessionOptionValue>,
}

/// Why an option was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum ErrorValue {
    /// The protocol's default; never sent.
    Unspecified = 0,
    /// No option has this name.
    InvalidName = 1,
    /// The value does not fit.
    InvalidValue = 2,
    /// The option may not be set.
    Error = 3,
}

/// What became of one option.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionError {
    #[prost(enumeration = "ErrorValue", tag = "1")]
    pub(super) value: i32,
}

/// The options that were not set; all others were.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) errors: BTreeMap<String, OptionError>,
}

/// All options.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) session_options: BTreeMap<String, SessionOptionValue>,
}

/// How closing went: 1 is closed, 3 cannot be closed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// The answer to CreatePreparedStatement and CreatePreparedSubstraitPlan.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PreparedStatementResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    pub(super) is_update: Option<bool>,
}

impl PreparedStatementResult {
    /// The message in the envelope that drivers unpack.
    pub(super) fn packed(&self) -> Bytes {
        let type_url = arrow_flight::sql::ActionCreatePreparedStatementResult::type_url().to_owned();
        Any { type_url, value: self.encode_to_vec().into() }.encode_to_vec().into()
    }
}
