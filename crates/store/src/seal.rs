//! What a chunk is called, and how it lies in the store: compressed, and sealed if its owner wants that.
//!
//! Without a key a chunk's *id* is the BLAKE3 of its bytes. With a key it is their keyed BLAKE3, so that who does not have
//! the key cannot tell whether a file that he knows is in the store; the frame is sealed by ChaCha20-Poly1305 with a
//! key of its own, made from the owner's key and the id. One key seals one content only, so the nonce may be zero, and equal
//! chunks of one owner are equal in the store.

use firebrick_digest::Digest;
use ring::{aead, hmac};

use crate::error::StoreError;
use crate::id::Id;

/// The level of zstd: higher ones cost more time than sending takes.
const LEVEL: i32 = 3;
/// What sealing adds to a frame, in bytes.
const TAG_LEN: usize = 16;

/// What names, closes and opens chunks.
#[derive(Clone)]
pub struct Seal(Option<Keyed>);

#[derive(Clone)]
struct Keyed {
    ids: [u8; 32],
    frames: hmac::Key,
    documents: hmac::Key,
    document_ids: [u8; 32],
    fingerprint: String,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seal({})", self.fingerprint().unwrap_or("plain"))
    }
}

impl Seal {
    /// Chunks that everybody who reads the store may read.
    pub const PLAIN: Seal = Seal(None);

    /// Chunks for those who have this key.
    pub fn keyed(key: &[u8; 32]) -> Seal {
        let all = hmac::Key::new(hmac::HMAC_SHA256, key);
        let part = |purpose: &str| bytes_of(&hmac::sign(&all, purpose.as_bytes()));
        let key = |purpose: &str| hmac::Key::new(hmac::HMAC_SHA256, &part(purpose));
        let name = part("firebrick store 1: fingerprint");
        Seal(Some(Keyed {
            ids: part("firebrick store 1: ids"),
            frames: key("firebrick store 1: frames"),
            documents: key("firebrick store 1: documents"),
            document_ids: part("firebrick store 1: document ids"),
            fingerprint: Digest::from_bytes(name).short(),
        }))
    }

    /// Tells keys apart without telling anything about them; `None` for plain chunks.
    pub fn fingerprint(&self) -> Option<&str> {
        self.0.as_ref().map(|keyed| keyed.fingerprint.as_str())
    }

    /// The id of a chunk's bytes.
    pub fn id(&self, bytes: &[u8]) -> Id {
        match &self.0 {
            None => Id::of(bytes),
            Some(keyed) => Id::keyed(&keyed.ids, bytes),
        }
    }

    /// Seals a document, by keys that no chunk has: what a chunk of the same bytes was sealed with says nothing of it.
    pub(crate) fn close_document(&self, mut bytes: Vec<u8>) -> (Id, Vec<u8>) {
        let Some(keyed) = &self.0 else {
            return (Id::of(&bytes), bytes);
        };
        let id = Id::keyed(&keyed.document_ids, &bytes);
        Seal::cipher(&keyed.documents, &id)
            .seal_in_place_append_tag(nonce(), aead::Aad::empty(), &mut bytes)
            .expect("a document is far shorter than what the cipher takes");
        (id, bytes)
    }

    /// Opens what [`Seal::close_document`] made.
    pub(crate) fn open_document(&self, id: &Id, mut bytes: Vec<u8>) -> Result<Vec<u8>, BadChunk> {
        let keyed = self.0.as_ref().ok_or(BadChunk::Sealed)?;
        let opened =
            Seal::cipher(&keyed.documents, id).open_in_place(nonce(), aead::Aad::empty(), &mut bytes);
        let bytes = opened.map_err(|_| BadChunk::Sealed)?;
        match Id::keyed(&keyed.document_ids, bytes) == *id {
            true => Ok(bytes.to_vec()),
            false => Err(BadChunk::Id),
        }
    }

    fn cipher(secret: &hmac::Key, id: &Id) -> aead::LessSafeKey {
        let key = hmac::sign(secret, id.as_bytes());
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key.as_ref());
        aead::LessSafeKey::new(key.expect("an HMAC-SHA-256 is as long as the cipher's key"))
    }
}

fn bytes_of(tag: &hmac::Tag) -> [u8; 32] {
    let bytes = tag.as_ref().try_into();
    bytes.expect("an HMAC-SHA-256 has 32 bytes")
}

fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

/// Compresses and seals, with buffers of its own: one for each thread.
pub(crate) struct Closer<'a> {
    seal: &'a Seal,
    zstd: zstd::bulk::Compressor<'static>,
}

impl<'a> Closer<'a> {
    pub(crate) fn new(seal: &'a Seal) -> Result<Closer<'a>, StoreError> {
        let zstd = zstd::bulk::Compressor::new(LEVEL).map_err(StoreError::Memory)?;
        Ok(Closer { seal, zstd })
    }

    /// The stored form of a chunk's bytes.
    pub(crate) fn close(&mut self, id: &Id, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut frame = self.zstd.compress(bytes).map_err(StoreError::Memory)?;
        if let Some(keyed) = &self.seal.0 {
            Seal::cipher(&keyed.frames, id)
                .seal_in_place_append_tag(nonce(), aead::Aad::empty(), &mut frame)
                .expect("a chunk is far shorter than what the cipher takes");
        }
        Ok(frame)
    }
}

/// Why stored bytes are not the chunk that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// Neither this owner's nor whole.
    #[error("it was not sealed with this key, or it was changed")]
    Sealed,
    /// No zstd frame, or one of another length.
    #[error("it is not a zstd frame of {len} bytes")]
    Frame {
        /// How many bytes there should be in it.
        len: usize,
    },
    /// Other bytes.
    #[error("its bytes are others than its id says")]
    Id,
}

/// Opens, decompresses and verifies, with buffers of its own: one for each thread.
pub(crate) struct Opener<'a> {
    seal: &'a Seal,
    zstd: zstd::bulk::Decompressor<'static>,
    sealed: Vec<u8>,
    bytes: Vec<u8>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(seal: &'a Seal) -> Result<Opener<'a>, StoreError> {
        Ok(Opener {
            seal,
            zstd: zstd::bulk::Decompressor::new().map_err(StoreError::Memory)?,
            sealed: Vec::new(),
            bytes: Vec::new(),
        })
    }

    /// The bytes of a chunk, which are those that its id promises; no more than `len` are ever made.
    pub(crate) fn open(&mut self, id: &Id, stored: &[u8], len: usize) -> Result<&[u8], BadChunk> {
        let Opener {
            seal,
            zstd,
            sealed,
            bytes,
        } = self;
        let frame = match &seal.0 {
            None => stored,
            Some(keyed) => {
                sealed.clear();
                sealed.extend_from_slice(stored);
                let opened =
                    Seal::cipher(&keyed.frames, id).open_in_place(nonce(), aead::Aad::empty(), sealed);
                &*opened.map_err(|_| BadChunk::Sealed)?
            }
        };
        // Into room of just this length: a longer frame does not fit, and fails.
        bytes.resize(len, 0);
        match zstd.decompress_to_buffer(frame, &mut bytes[..]) {
            Ok(found) if found == len => {}
            _ => return Err(BadChunk::Frame { len }),
        }
        match seal.id(bytes) {
            found if found == *id => Ok(bytes),
            _ => Err(BadChunk::Id),
        }
    }
}

/// The most that a stored chunk of `len` bytes may take.
pub(crate) fn stored_max(len: usize) -> usize {
    zstd::zstd_safe::compress_bound(len) + TAG_LEN
}
