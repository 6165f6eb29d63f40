//! What lives for as long as somebody uses it, and is found again by whoever comes meanwhile.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// State that is shared by those who name it by the same key, and gone with the last of them.
#[derive(Debug)]
pub(super) struct Kept<K, V>(HashMap<K, Weak<V>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Kept<K, V> {
    /// What stands under a key; made now if there is nothing.
    pub(super) fn get_or_make(&mut self, key: K, make: impl FnOnce() -> Arc<V>) -> Arc<V> {
        let place = self.0.entry(key).or_default();
        place.upgrade().unwrap_or_else(|| {
            let made = make();
            *place = Arc::downgrade(&made);
            made
        })
    }

    /// What stands under a key.
    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.0.get(key)?.upgrade()
    }

    /// From now on this stands under the key.
    pub(super) fn put(&mut self, key: K, value: &Arc<V>) {
        self.0.insert(key, Arc::downgrade(value));
    }

    /// Lets go of the keys of what is gone.
    pub(super) fn forget(&mut self) {
        self.0.retain(|_, value| value.strong_count() > 0);
    }

    /// Keys, those of what is gone included.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
