//! Host and guest messages and framing; no I/O
