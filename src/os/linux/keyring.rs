//! The keyring: Secret Service, or the kernel's own where there is no session bus.

use std::sync::OnceLock;

use keyring_core::Entry;

use crate::os::desktop_keyring;

/// The entry `name` of `service`. Blocks, perhaps for as long as a person takes to unlock the keyring.
///
/// Without a session bus there is no Secret Service, and asking for it would start one: then it is the kernel's keyring
/// (keyrings(7)), which keeps secrets until the machine restarts.
///
/// # Errors
/// Why there is no keyring.
pub fn entry(service: &str, name: &str) -> Result<Entry, String> {
    static HEADLESS: OnceLock<Result<(), String>> = OnceLock::new();
    let has_bus = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some_and(|address| !address.is_empty());
    if has_bus {
        return desktop_keyring::entry(service, name);
    }
    let set = HEADLESS.get_or_init(|| {
        let store = linux_keyutils_keyring_store::Store::new().map_err(|e| e.to_string())?;
        keyring_core::set_default_store(store);
        Ok(())
    });
    set.clone()?;
    Entry::new(service, name).map_err(|e| e.to_string())
}
