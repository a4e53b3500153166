//! known_hosts files.

#![no_main]

use dtunnel::ssh::read_known_hosts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("dtunnel-fuzz-known-hosts-{}", std::process::id()));
    if std::fs::write(&path, bytes).is_ok() {
        read_known_hosts(&path, "host.example");
        read_known_hosts(&path, "[host.example]:2222");
    }
});
