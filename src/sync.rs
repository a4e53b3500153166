//! Locks that do not mind a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. Each critical section leaves its data whole at any moment, so that a panic in another one, which would
/// have been reported already, breaks nothing here.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
