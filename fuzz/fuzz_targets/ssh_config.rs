//! ssh_config: the words of `ssh -G`, and the file itself.

#![no_main]

use std::io::Write;

use dtunnel::config::{ConfigFile, read_ssh_answer, ssh_hosts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = read_ssh_answer(text);
    // An Include would read this machine's files.
    if text.to_ascii_lowercase().contains("include") {
        return;
    }
    let path = std::env::temp_dir().join(format!("dtunnel-fuzz-ssh-config-{}", std::process::id()));
    let Ok(mut file) = std::fs::File::create(&path) else { return };
    if file.write_all(text.as_bytes()).is_ok()
        && let Ok(hosts) = ssh_hosts(Some(&path), &ConfigFile::default())
    {
        assert!(!hosts.iter().any(|host| host.contains('*')), "patterns are no hosts");
    }
});
