//! config.toml: whatever is in it, it is read or refused with a place, and a profile that was read is
//! resolved or refused.

#![no_main]

use std::path::Path;

use dtunnel::config::{ConfigFile, LocalEndpoint, Overrides, PortRule, Remote, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = (LocalEndpoint::parse(text), Remote::parse(text));
    if let Ok(rule) = text.parse::<PortRule>() {
        assert_eq!(rule.to_string().parse::<PortRule>().as_ref(), Ok(&rule), "what is shown is read alike");
    }
    let Ok(config) = ConfigFile::parse(text, Path::new("config.toml")) else { return };
    let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
    if let Some(name) = config.profiles.keys().next() {
        // `ssh -G` is a process: without one, so that this stays fast.
        let _ = (config.profile(name), config.nearest_profile(name));
        if std::env::var_os("FUZZ_RESOLVE").is_some() {
            let _ = resolve(name, &config, &overrides, Path::new("/run/x.sock"));
        }
    }
});
