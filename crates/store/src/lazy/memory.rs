//! Chunks in memory, where there is no file to keep them in: those that were used last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::lazy::chunks::Key;

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    len: usize,
    /// With the moment of their last use.
    chunks: HashMap<Key, (Arc<[u8]>, u64)>,
    /// By that moment.
    order: BTreeMap<u64, Key>,
    moment: u64,
}

impl Memory {
    /// Room for `limit` bytes.
    pub(super) fn new(limit: usize) -> Memory {
        Memory {
            limit,
            len: 0,
            chunks: HashMap::new(),
            order: BTreeMap::new(),
            moment: 0,
        }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<Arc<[u8]>> {
        let (bytes, used) = self.chunks.get_mut(key)?;
        self.moment += 1;
        self.order.remove(used);
        self.order.insert(self.moment, *key);
        *used = self.moment;
        Some(Arc::clone(bytes))
    }

    pub(super) fn insert(&mut self, key: Key, bytes: Arc<[u8]>) {
        self.moment += 1;
        self.len += bytes.len();
        self.order.insert(self.moment, key);
        if let Some((old, used)) = self.chunks.insert(key, (bytes, self.moment)) {
            self.len -= old.len();
            self.order.remove(&used);
        }
        while self.len > self.limit
            && let Some((_, key)) = self.order.pop_first()
        {
            if let Some((old, _)) = self.chunks.remove(&key) {
                self.len -= old.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn what_was_used_last_stays() {
        let key = |number: u8| (Id::of(&[number]), 10);
        let mut memory = Memory::new(35);
        for number in 0..3 {
            memory.insert(key(number), Arc::new([number; 10]));
        }
        assert_eq!(memory.get(&key(0)).unwrap()[..], [0; 10]);
        memory.insert(key(3), Arc::new([3; 10]));
        memory.insert(key(3), Arc::new([3; 10]));
        let there: Vec<bool> = (0..4).map(|number| memory.get(&key(number)).is_some()).collect();
        assert_eq!(there, [true, false, true, true]);
        // What is larger than all the room is not kept, and nothing else either.
        memory.insert(key(4), Arc::new([4; 40]));
        assert_eq!((memory.len, memory.chunks.len(), memory.order.len()), (0, 0, 0));
    }
}
