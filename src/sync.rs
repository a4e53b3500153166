//! Locks that do not mind a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. Every critical section keeps its data consistent at any moment, so a poisoned lock is safe to use;
/// the panic itself was already reported.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
