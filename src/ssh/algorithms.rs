//! Which algorithms are offered, and in which order.

use std::borrow::Cow;

use russh::keys::{Algorithm, HashAlg};
use russh::{Preferred, cipher, compression};

/// Ciphers, AES-GCM first: with AES in the CPU it is 1.3 times as fast as ChaCha20-Poly1305 and
/// no slower than OpenSSH (docs/architecture.md, "The data plane").
const WITH_AES: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
/// The same where AES would be computed in software, slower and with timing to worry about.
const WITHOUT_AES: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// What is offered to a server whose keys of the types `known` are in known_hosts: those types
/// first, so that a server with several keys shows one that can be checked. Nothing with SHA-1,
/// CBC, 3DES or DSA; key exchange begins with mlkem768x25519.
pub(super) fn preferred(known: &[Algorithm]) -> Preferred {
    let is_known = |algorithm: &Algorithm| known.iter().any(|k| same_key_type(k, algorithm));
    let safe = Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None }));
    let (mut first, rest): (Vec<Algorithm>, Vec<Algorithm>) = safe.cloned().partition(|a| is_known(a));
    first.extend(rest);
    Preferred {
        key: Cow::Owned(first),
        cipher: Cow::Borrowed(if cpu_has_aes() { WITH_AES } else { WITHOUT_AES }),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..Preferred::DEFAULT
    }
}

/// Do two algorithm names stand for the same type of key? (RSA keys sign with several hashes.)
fn same_key_type(a: &Algorithm, b: &Algorithm) -> bool {
    match (a, b) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        _ => a == b,
    }
}

/// The signature of a key: RSA with the best of SHA-2 that the server takes, `rsa-sha2-512` where
/// it does not say (RFC 8332 section 3.3). None where the server takes RSA with SHA-1 only.
pub(super) fn rsa_hash(server: Option<Option<HashAlg>>) -> Option<HashAlg> {
    server.unwrap_or(Some(HashAlg::Sha512))
}

fn cpu_has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_with_sha_1_or_cbc_is_offered_and_post_quantum_comes_first() {
        let offered = preferred(&[]);
        let names: Vec<String> = (offered.cipher.iter().map(|n| n.as_ref().to_owned()))
            .chain(offered.kex.iter().map(|n| n.as_ref().to_owned()))
            .chain(offered.mac.iter().map(|n| n.as_ref().to_owned()))
            .chain(offered.key.iter().map(ToString::to_string))
            .collect();
        for weak in ["sha1", "cbc", "3des", "ssh-dss"] {
            assert!(!names.iter().any(|name| name.contains(weak)), "{weak} in {names:?}");
        }
        assert!(!names.iter().any(|name| name == "ssh-rsa"));
        assert!(offered.kex[0].as_ref().starts_with("mlkem768x25519"));
    }

    #[test]
    fn a_known_key_type_is_asked_for_first() {
        let offered = preferred(&[Algorithm::Rsa { hash: None }]);
        assert_eq!(offered.key[0], Algorithm::Rsa { hash: Some(HashAlg::Sha512) });
        assert_eq!(offered.key.len(), preferred(&[]).key.len());
    }
}
