//! Options of a handshake: what each is answered with.

use super::handshake::{Offer, Terms};
use super::wire::{Fields, OPTION_REPLY_MAGIC, info, option, option_reply, transmission};
use super::{NAME_LEN_MAX, PAYLOAD_BYTES_MAX, Violation};

/// The metadata context that there is.
const ALLOCATION: &[u8] = b"base:allocation";
/// What asks for all contexts of its namespace.
const BASE: &[u8] = b"base:";
/// The number by which the context's extents are known; any will do.
pub(super) const ALLOCATION_ID: u32 = 1;
/// What block sizes clients are told: any read will do, pages are what they should ask for.
const BLOCK_SIZES: [u32; 3] = [1, 4096, PAYLOAD_BYTES_MAX];

/// What is said to an option.
pub(super) struct Said {
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
}

/// What comes behind a reply.
pub(super) enum Then {
    GoOn,
    Leave,
    Transmit(Terms),
}

/// Types of replies, with their data.
type Replies = Vec<(u32, Vec<u8>)>;
/// The type of an error, and a text for people.
type Error = (u32, &'static str);

/// An option whose bytes do not add up.
const INVALID: Error = (option_reply::ERR_INVALID, "the option is malformed");
/// A name that is not served.
const UNKNOWN: Error = (option_reply::ERR_UNKNOWN, "there is no export of that name");

/// A handshake on its way.
pub(super) struct Talk<'a> {
    offer: Offer<'a>,
    /// Whether zeros follow what `NBD_OPT_EXPORT_NAME` is answered with.
    zeros: bool,
    structured: bool,
    /// The name of the export that `base:allocation` was chosen for. If another is used in the end, it does not count.
    context_of: Option<Vec<u8>>,
}

impl<'o> Talk<'o> {
    /// Begins one. Where `zeros`, the client wants those that old clients know.
    pub(super) fn new(offer: Offer<'o>, zeros: bool) -> Talk<'o> {
        Talk {
            offer,
            zeros,
            structured: false,
            context_of: None,
        }
    }

    /// What is said to an option of this number, with this data.
    pub(super) fn hear(&mut self, kind: u32, data: &[u8]) -> Result<Said, Violation> {
        let mut then = Then::GoOn;
        let outcome = match kind {
            option::EXPORT_NAME => return self.export_name(data),
            option::ABORT => {
                then = Then::Leave;
                Ok(Vec::new())
            }
            option::LIST => self.list(data),
            option::INFO => self.info(data).map(|(replies, _)| replies),
            option::GO => self.info(data).map(|(replies, name)| {
                then = Then::Transmit(self.terms(name));
                replies
            }),
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                Ok(Vec::new())
            }
            option::STRUCTURED_REPLY => Err(INVALID),
            option::LIST_META_CONTEXT => self.contexts(data, 0, true).map(|(replies, _)| replies),
            option::SET_META_CONTEXT => self.set_context(data),
            _ => Err((option_reply::ERR_UNSUP, "this server does not know the option")),
        };
        let mut bytes = Vec::new();
        match outcome {
            Ok(replies) => {
                for (reply, data) in replies {
                    put_reply(&mut bytes, kind, reply, &data);
                }
                put_reply(&mut bytes, kind, option_reply::ACK, &[]);
            }
            Err((reply, text)) => put_reply(&mut bytes, kind, reply, text.as_bytes()),
        }
        Ok(Said { bytes, then })
    }

    fn is_served(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.offer.name.as_bytes()
    }

    fn terms(&self, name: &[u8]) -> Terms {
        Terms {
            structured: self.structured,
            allocation: self.structured && self.context_of.as_deref() == Some(name),
        }
    }

    fn transmission_flags(&self) -> u16 {
        let unfragmented = if self.structured { transmission::SEND_DF } else { 0 };
        transmission::HAS_FLAGS
            | transmission::READ_ONLY
            | transmission::SEND_FLUSH
            | transmission::CAN_MULTI_CONN
            | transmission::SEND_CACHE
            | unfragmented
    }

    /// Size and flags of the export.
    fn export(&self) -> Vec<u8> {
        [
            &self.offer.size_bytes.to_be_bytes()[..],
            &self.transmission_flags().to_be_bytes(),
        ]
        .concat()
    }

    fn export_name(&self, name: &[u8]) -> Result<Said, Violation> {
        if !self.is_served(name) {
            let shown = name.get(..100).unwrap_or(name);
            return Err(Violation::UnknownExport {
                name: String::from_utf8_lossy(shown).into_owned(),
            });
        }
        let mut bytes = self.export();
        if self.zeros {
            bytes.extend([0; 124]);
        }
        Ok(Said {
            bytes,
            then: Then::Transmit(self.terms(name)),
        })
    }

    fn list(&self, data: &[u8]) -> Result<Replies, Error> {
        if !data.is_empty() {
            return Err(INVALID);
        }
        Ok(vec![(option_reply::SERVER, string(self.offer.name.as_bytes()))])
    }

    /// The replies to `NBD_OPT_INFO` and `NBD_OPT_GO`, and the name that was asked for.
    fn info<'a>(&self, data: &'a [u8]) -> Result<(Replies, &'a [u8]), Error> {
        let (name, asked) = info_fields(data).ok_or(INVALID)?;
        if !self.is_served(name) {
            return Err(UNKNOWN);
        }
        let mut told = vec![[&info::EXPORT.to_be_bytes()[..], &self.export()].concat()];
        if asked.contains(&info::NAME) {
            told.push([&info::NAME.to_be_bytes()[..], self.offer.name.as_bytes()].concat());
        }
        if asked.contains(&info::BLOCK_SIZE) {
            let sizes = BLOCK_SIZES.map(u32::to_be_bytes).concat();
            told.push([&info::BLOCK_SIZE.to_be_bytes()[..], &sizes].concat());
        }
        Ok((
            told.into_iter().map(|data| (option_reply::INFO, data)).collect(),
            name,
        ))
    }

    /// The replies about metadata contexts that carry this number, and the name that was asked for. Where `lists`, no query and the
    /// namespace ask for all that there are.
    fn contexts<'a>(&self, data: &'a [u8], number: u32, lists: bool) -> Result<(Replies, &'a [u8]), Error> {
        if !self.structured {
            let text = "metadata contexts need structured replies first";
            return Err((option_reply::ERR_INVALID, text));
        }
        let (name, queries) = context_fields(data).ok_or(INVALID)?;
        if !self.is_served(name) {
            return Err(UNKNOWN);
        }
        let all = lists && (queries.is_empty() || queries.contains(&BASE));
        let mut replies = Vec::new();
        if all || queries.contains(&ALLOCATION) {
            let context = [&number.to_be_bytes()[..], ALLOCATION].concat();
            replies.push((option_reply::META_CONTEXT, context));
        }
        Ok((replies, name))
    }

    fn set_context(&mut self, data: &[u8]) -> Result<Replies, Error> {
        // Whatever was chosen before is chosen no longer, even where this one fails.
        self.context_of = None;
        let (replies, name) = self.contexts(data, ALLOCATION_ID, false)?;
        if !replies.is_empty() {
            self.context_of = Some(name.to_owned());
        }
        Ok(replies)
    }
}

/// A name, and what is asked about it.
fn info_fields(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.string().filter(|name| name.len() <= NAME_LEN_MAX)?;
    let count = fields.u16()?;
    let asked = (0..count).map(|_| fields.u16()).collect::<Option<Vec<_>>>()?;
    fields.end()?;
    Some((name, asked))
}

/// A name, and queries for its metadata contexts.
fn context_fields(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut fields = Fields(data);
    let name = fields.string().filter(|name| name.len() <= NAME_LEN_MAX)?;
    // Each takes four bytes at least, so that the option's own bound is one for these.
    let count = fields.u32()?;
    let queries = (0..count).map(|_| fields.string()).collect::<Option<Vec<_>>>()?;
    fields.end()?;
    Some((name, queries))
}

/// A string with its length before it.
fn string(text: &[u8]) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("names are short");
    [&len.to_be_bytes()[..], text].concat()
}

fn put_reply(out: &mut Vec<u8>, option: u32, reply: u32, data: &[u8]) {
    out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(reply.to_be_bytes());
    out.extend(string(data));
}
