//! How a client can break the protocol.

/// What a client sent that ends its connection.
///
/// Requests that cannot be granted are answered with an error and are none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Flags that the server does not have.
    #[error("handshake flags {flags:#x} have bits that were not offered")]
    HandshakeFlags {
        /// The client's.
        flags: u32,
    },
    /// An option that does not begin as one.
    #[error("an option begins with {magic:#018x}")]
    OptionMagic {
        /// What it begins with.
        magic: u64,
    },
    /// An option that is too long to be one.
    #[error("option {option} has {len} bytes, and at most {limit} are taken")]
    OptionTooLong {
        /// The option's number.
        option: u32,
        /// The length that it claims, in bytes.
        len: u32,
        /// The bound.
        limit: u32,
    },
    /// `NBD_OPT_EXPORT_NAME` with a name that is not served; this option cannot be answered with an error.
    #[error("there is no export {name:?}")]
    UnknownExport {
        /// The name, readable and cut.
        name: String,
    },
    /// More options than any client has a use for.
    #[error("{limit} options did not end the handshake")]
    TooManyOptions {
        /// The bound.
        limit: usize,
    },
    /// No end of the handshake in time.
    #[error("the handshake took longer than {limit_s} s")]
    HandshakeTooSlow {
        /// The bound, in whole seconds.
        limit_s: u64,
    },
    /// A request that does not begin as one.
    #[error("a request begins with {magic:#010x}")]
    RequestMagic {
        /// What it begins with.
        magic: u32,
    },
    /// A write of more bytes than a request may have; they cannot be skipped.
    #[error("a write has {len} bytes, and at most {limit} are taken")]
    PayloadTooLong {
        /// The length that it claims, in bytes.
        len: u32,
        /// The bound.
        limit: u32,
    },
}
