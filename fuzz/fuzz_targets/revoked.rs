//! RevokedHostKeys: lists of keys, and key revocation lists.

#![no_main]

use dtunnel::ssh::read_revoked_keys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| read_revoked_keys(bytes));
