//! Plans, writes and reads ext4 filesystems
