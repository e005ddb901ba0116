//! Trust, judged by openssl, and by bytes that nobody would write.

mod hostile;
mod openssl;
