//! The keyring that a desktop unlocks: Secret Service (Linux), Keychain (macOS).

use keyring_core::Entry;

/// The entry `name` of `service`.
///
/// # Errors
/// Why there is no keyring.
pub(super) fn entry(service: &str, name: &str) -> Result<Entry, String> {
    keyring::Entry::new(service, name).map(|entry| entry.inner).map_err(|_| status())
}

fn status() -> String {
    match keyring::Entry::store_status() {
        Ok(()) => "it refused".into(),
        Err(e) => e.to_string(),
    }
}
