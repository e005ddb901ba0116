//! The merged file tree and the OCI rules for merging layers
