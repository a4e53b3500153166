//! What is going on now, listed for as long as it goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Values by number, in the order in which they were entered.
#[derive(Debug)]
pub(super) struct Registry<T>(Mutex<(u64, BTreeMap<u64, T>)>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Mutex::new((0, BTreeMap::new())))
    }
}

impl<T: Clone> Registry<T> {
    /// Enters a value, for as long as the returned entry lives.
    pub(super) fn enter(self: &Arc<Self>, value: T) -> Entry<T> {
        let mut entries = lock(&self.0);
        entries.0 += 1;
        let number = entries.0;
        entries.1.insert(number, value);
        Entry { registry: self.clone(), number }
    }

    /// At most `most` of the values that are entered.
    pub(super) fn values(&self, most: usize) -> Vec<T> {
        lock(&self.0).1.values().take(most).cloned().collect()
    }
}

/// An entered value, removed on drop.
#[derive(Debug)]
pub(super) struct Entry<T> {
    registry: Arc<Registry<T>>,
    number: u64,
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        lock(&self.registry.0).1.remove(&self.number);
    }
}
