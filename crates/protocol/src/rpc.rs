//! JSON-RPC 2.0 messages, one JSON object each; [`crate::line`] puts one on a line.
//!
//! A *request* has an id and is answered by one *response* with that id, in any order; a *notification* has no id and
//! is never answered. Batches (a JSON array) are refused. Specification: <https://www.jsonrpc.org/specification>

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The line is not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// The line is JSON, but not a request.
pub const INVALID_REQUEST: i32 = -32600;
/// There is no such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The method's parameters are missing, unknown or of the wrong type or value.
pub const INVALID_PARAMS: i32 = -32602;
/// The agent could not do what was asked; `data.errno` holds the kernel's reason where there is one.
pub const INTERNAL_ERROR: i32 = -32603;
/// The agent is at a limit (jobs of this connection); try again when a job has ended.
pub const BUSY: i32 = -32000;

/// The longest id that is a text: it is kept, and given back, for as long as its job runs.
pub const MAX_ID_BYTES: usize = 4096;

/// What ties a response to its request: whatever number, text or null the client chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// JSON `null`; also the id of an error whose request could not be read.
    Null,
    /// A number, given back as it came.
    Number(serde_json::Number),
    /// A text.
    Text(String),
}

impl From<u64> for Id {
    fn from(number: u64) -> Id {
        Id::Number(number.into())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Id::Null => serializer.serialize_unit(),
            Id::Number(number) => number.serialize(serializer),
            Id::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        /// Builds nothing out of what is no id, however long it is.
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id: a number, a string or null")
            }

            fn visit_unit<E>(self) -> Result<Id, E> {
                Ok(Id::Null)
            }

            fn visit_u64<E>(self, number: u64) -> Result<Id, E> {
                Ok(Id::Number(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Id, E> {
                Ok(Id::Number(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Id, E> {
                Ok(serde_json::Number::from_f64(number).map_or(Id::Null, Id::Number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                if text.len() > MAX_ID_BYTES {
                    return Err(E::custom(format_args!("an id has at most {MAX_ID_BYTES} bytes")));
                }
                Ok(Id::Text(text.into()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The most values that parameters may have. Each costs the agent more than the three bytes of the shortest.
const MAX_VALUES: usize = 70_000;

/// Whether JSON has more than [`MAX_VALUES`] values.
fn has_too_many_values(json: &str) -> bool {
    let mut commas = 0usize;
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b',' if !is_text => commas = commas.saturating_add(1),
            _ => {}
        }
    }
    commas >= MAX_VALUES
}

/// An error as it stands in a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    /// One of this module's codes.
    pub code: i32,
    /// For people: lower case, no full stop.
    pub message: String,
    /// Facts for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ErrorData>,
}

/// The facts that an error may carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// The kernel's error number in the guest (2 is ENOENT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        RpcError {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// [`INVALID_PARAMS`] with its reason.
    pub fn invalid_params(message: impl Into<String>) -> RpcError {
        RpcError::new(INVALID_PARAMS, message)
    }

    /// [`INTERNAL_ERROR`] with the kernel's error number.
    pub fn internal(message: impl Into<String>, errno: Option<i32>) -> RpcError {
        RpcError {
            code: INTERNAL_ERROR,
            message: message.into(),
            data: errno.map(|errno| ErrorData { errno: Some(errno) }),
        }
    }
}

/// A request or, without an id, a notification, as it arrives at the agent.
#[derive(Debug)]
pub struct Request<'line> {
    /// `None` makes it a notification.
    pub id: Option<Id>,
    /// The method's name.
    pub method: Cow<'line, str>,
    params: Option<&'line RawValue>,
}

/// A line that is no request: what to answer, and to which id.
#[derive(Debug, Clone, PartialEq)]
pub struct BadRequest {
    /// The id, where the line had one.
    pub id: Id,
    /// What to answer.
    pub error: RpcError,
}

#[derive(Deserialize)]
struct RawRequest<'line> {
    #[serde(borrow)]
    jsonrpc: Cow<'line, str>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Id>,
    #[serde(borrow)]
    method: Cow<'line, str>,
    #[serde(borrow, default)]
    params: Option<&'line RawValue>,
}

#[derive(Deserialize)]
struct OnlyId {
    #[serde(default, deserialize_with = "present")]
    id: Option<Id>,
}

/// Whether it is an array, if it is JSON. A struct could be read from one, too, its fields in their order.
fn is_array(text: &str) -> bool {
    text.trim_ascii_start().starts_with('[')
}

/// Tells `"id": null` from no id at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Id>, D::Error> {
    Id::deserialize(deserializer).map(Some)
}

impl<'line> Request<'line> {
    /// Reads one line.
    ///
    /// # Errors
    /// What to answer: [`PARSE_ERROR`] when the line is not JSON, [`INVALID_REQUEST`] when it is no request object.
    pub fn parse(line: &'line [u8]) -> Result<Request<'line>, BadRequest> {
        let bad = |id, code, message| BadRequest {
            id,
            error: RpcError::new(code, message),
        };
        let text = core::str::from_utf8(line)
            .map_err(|error| bad(Id::Null, PARSE_ERROR, alloc::format!("not UTF-8: {error}")))?;
        if is_array(text) {
            return Err(match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => bad(
                    Id::Null,
                    INVALID_REQUEST,
                    String::from("an array: batches are not taken, each request is a line of its own"),
                ),
                Err(error) => bad(Id::Null, PARSE_ERROR, alloc::format!("not JSON: {error}")),
            });
        }
        match serde_json::from_str::<RawRequest<'line>>(text) {
            Ok(raw) if raw.jsonrpc == "2.0" => Ok(Request {
                id: raw.id,
                method: raw.method,
                params: raw.params,
            }),
            Ok(raw) => {
                let id = raw.id.unwrap_or(Id::Null);
                Err(bad(
                    id,
                    INVALID_REQUEST,
                    String::from("`jsonrpc` must be \"2.0\""),
                ))
            }
            Err(error) => {
                if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
                    return Err(bad(Id::Null, PARSE_ERROR, alloc::format!("not JSON: {error}")));
                }
                let id = serde_json::from_str::<OnlyId>(text)
                    .ok()
                    .and_then(|only| only.id)
                    .unwrap_or(Id::Null);
                Err(bad(id, INVALID_REQUEST, alloc::format!("not a request: {error}")))
            }
        }
    }

    /// The length of the parameters' JSON.
    pub fn params_len(&self) -> usize {
        self.params.map_or(0, |params| params.get().len())
    }

    /// The parameters as `T`. Absent parameters are an empty object.
    ///
    /// # Errors
    /// [`INVALID_PARAMS`] with what does not fit.
    pub fn params<T: Deserialize<'line>>(&self) -> Result<T, RpcError> {
        let text = self.params.map_or("{}", RawValue::get);
        // A struct could be read from an array, too, and then says odd things of what does not fit.
        if !text.starts_with('{') {
            return Err(RpcError::invalid_params(alloc::format!(
                "{}: expected an object with named parameters",
                self.method
            )));
        }
        if text.len() > MAX_VALUES && has_too_many_values(text) {
            return Err(RpcError::invalid_params(alloc::format!(
                "{}: more than {MAX_VALUES} values",
                self.method
            )));
        }
        serde_json::from_str(text)
            .map_err(|error| RpcError::invalid_params(alloc::format!("{}: {error}", self.method)))
    }
}

/// A line as it arrives at the client.
#[derive(Debug)]
pub enum Incoming {
    /// The answer to a request.
    Response {
        /// The request's id.
        id: Id,
        /// What came of it.
        outcome: Result<Payload, RpcError>,
    },
    /// Something that happened meanwhile, `output` of a job for example.
    Notification {
        /// What happened.
        method: String,
        /// Its facts.
        params: Payload,
    },
}

/// JSON whose type is known only to who asked.
pub struct Payload(alloc::boxed::Box<RawValue>);

impl Payload {
    /// Reads it as `T`.
    ///
    /// # Errors
    /// [`BadReply`] with what does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, BadReply> {
        serde_json::from_str(self.0.get()).map_err(BadReply::new)
    }

    /// The JSON text.
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What the agent sent does not follow the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the agent's reply cannot be read: {reason}")]
pub struct BadReply {
    reason: String,
}

impl BadReply {
    fn new(reason: impl ToString) -> BadReply {
        BadReply {
            reason: reason.to_string(),
        }
    }
}

#[derive(Deserialize)]
struct RawIncoming {
    jsonrpc: String,
    #[serde(default, deserialize_with = "present")]
    id: Option<Id>,
    method: Option<String>,
    params: Option<alloc::boxed::Box<RawValue>>,
    result: Option<alloc::boxed::Box<RawValue>>,
    error: Option<RpcError>,
}

impl Incoming {
    /// Reads one line from the agent.
    ///
    /// # Errors
    /// [`BadReply`] when it is neither a response nor a notification.
    pub fn parse(line: &[u8]) -> Result<Incoming, BadReply> {
        let text = core::str::from_utf8(line).map_err(BadReply::new)?;
        if is_array(text) {
            return Err(BadReply::new("an array"));
        }
        let raw: RawIncoming = serde_json::from_str(text).map_err(BadReply::new)?;
        if raw.jsonrpc != "2.0" {
            return Err(BadReply::new("`jsonrpc` is not \"2.0\""));
        }
        match raw {
            RawIncoming {
                method: Some(method),
                id: None,
                params,
                result: None,
                error: None,
                ..
            } => {
                let params = params.map_or_else(|| raw_value("{}"), Ok)?;
                Ok(Incoming::Notification {
                    method,
                    params: Payload(params),
                })
            }
            RawIncoming {
                id: Some(id),
                result: Some(result),
                error: None,
                method: None,
                ..
            } => Ok(Incoming::Response {
                id,
                outcome: Ok(Payload(result)),
            }),
            RawIncoming {
                id: Some(id),
                error: Some(error),
                result: None,
                method: None,
                ..
            } => Ok(Incoming::Response {
                id,
                outcome: Err(error),
            }),
            _ => Err(BadReply::new("neither a response nor a notification")),
        }
    }
}

fn raw_value(text: &str) -> Result<alloc::boxed::Box<RawValue>, BadReply> {
    serde_json::from_str(text).map_err(BadReply::new)
}

#[derive(Serialize)]
struct Outgoing<'a, P> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
}

fn write_line<P: Serialize>(message: &Outgoing<'_, P>) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(message).expect("our messages have string keys and no failing serializer");
    line.push(b'\n');
    line
}

/// A request as a line with its newline.
pub fn request_line<P: Serialize>(id: &Id, method: &str, params: P) -> Vec<u8> {
    let (id, method, params) = (Some(id), Some(method), Some(params));
    write_line(&Outgoing {
        jsonrpc: "2.0",
        id,
        method,
        params,
        result: None,
        error: None,
    })
}

/// A notification as a line with its newline.
pub fn notification_line<P: Serialize>(method: &str, params: P) -> Vec<u8> {
    let (method, params) = (Some(method), Some(params));
    write_line(&Outgoing {
        jsonrpc: "2.0",
        id: None,
        method,
        params,
        result: None,
        error: None,
    })
}

/// A successful response as a line with its newline.
pub fn result_line<P: Serialize>(id: &Id, result: P) -> Vec<u8> {
    let (id, result) = (Some(id), Some(result));
    write_line(&Outgoing {
        jsonrpc: "2.0",
        id,
        method: None,
        params: None,
        result,
        error: None,
    })
}

/// A response that tells an error, as a line with its newline.
pub fn error_line(id: &Id, error: &RpcError) -> Vec<u8> {
    let (id, error) = (Some(id), Some(error));
    write_line(&Outgoing::<()> {
        jsonrpc: "2.0",
        id,
        method: None,
        params: None,
        result: None,
        error,
    })
}

#[cfg(test)]
#[path = "rpc_tests.rs"]
mod tests;
