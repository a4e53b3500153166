//! The keyring: the login Keychain.

use keyring_core::Entry;

use crate::os::desktop_keyring;

/// The entry `name` of `service`. Blocks, perhaps for as long as a person takes to unlock the Keychain or to allow this
/// program to read it. Without a login at the screen (over ssh) a locked Keychain refuses.
///
/// # Errors
/// Why there is no keyring.
pub fn entry(service: &str, name: &str) -> Result<Entry, String> {
    desktop_keyring::entry(service, name)
}
