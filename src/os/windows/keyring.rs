//! The keyring: the Credential Manager, whose entries only this user can read.

use keyring_core::Entry;

use crate::os::desktop_keyring;

/// The entry `name` of `service`.
///
/// # Errors
/// Why there is no keyring.
pub fn entry(service: &str, name: &str) -> Result<Entry, String> {
    desktop_keyring::entry(service, name)
}
