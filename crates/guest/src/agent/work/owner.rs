//! Who shall own what is put.

use firebrick_protocol::rpc::RpcError;
use rustix::fs::{Gid, Uid};

use crate::users;

/// The number that is nobody's: to the kernel it says that the owner stays as it is.
pub(super) const NOBODY: u32 = u32::MAX;

/// A user and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Owner {
    pub(in super::super) uid: u32,
    pub(in super::super) gid: u32,
}

impl Owner {
    /// Who `user[:group]` is in this image, if anybody is named.
    pub(in super::super) fn named(spec: Option<&str>) -> Result<Option<Owner>, RpcError> {
        let Some(spec) = spec else { return Ok(None) };
        let (passwd, group) = (crate::file::text("/etc/passwd"), crate::file::text("/etc/group"));
        let user = users::resolve(spec, &passwd, &group).map_err(RpcError::invalid_params)?;
        if [user.uid, user.gid].contains(&NOBODY) {
            return Err(RpcError::invalid_params(alloc::format!(
                "{NOBODY} is no number of an owner or group"
            )));
        }
        Ok(Some(Owner {
            uid: user.uid,
            gid: user.gid,
        }))
    }

    pub(in super::super) fn ids(self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }
}
