//! What a host says of a mirror, compressed or not: read within bounds, or refused.

#![no_main]

use dtunnel::tunnel::read_mirror;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &[u8]| read_mirror(answer));
