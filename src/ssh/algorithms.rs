//! The algorithms offered to a server, and their order.

use std::borrow::Cow;

use russh::keys::{Algorithm, HashAlg};
use russh::{Preferred, cipher, compression, kex, mac};

use super::error::Error;
use crate::config::{Algorithms, SshSettings};

/// Ciphers with AES-GCM first: with AES instructions it is 1.3 times as fast as ChaCha20-Poly1305 and as fast as
/// OpenSSH (docs/architecture.md, "The data plane").
const WITH_AES: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
/// Ciphers with ChaCha20 first: AES in software is slower and prone to timing attacks.
const WITHOUT_AES: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// What known_hosts holds about a host; decides the order of the host key algorithms.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The types of the host's plain keys.
    pub(super) types: Vec<Algorithm>,
    /// Whether an authority for its certificates is known.
    pub(super) authority: bool,
    /// Whether an authority may be revoked, by a marker or a file.
    pub(super) revocations: bool,
}

/// The algorithms offered to a server: those of ssh_config, else dtunnel's own lists. SHA-1, CBC, 3DES and DSA are off
/// unless ssh_config turns them on; key exchange begins with mlkem768x25519.
///
/// Host key algorithms are ordered as by `order_hostkeyalgs` in OpenSSH's sshconnect2.c, so that an honest server with
/// several keys shows a known one: unchanged if the first key's type is known, otherwise known types first. The user's
/// HostKeyAlgorithms list keeps its order.
///
/// Certificates come before all plain keys (russh has no other order). With an authority, all types are offered.
/// Without one, certificates serve only to detect revocation, and only known types are offered: the plain key inside a
/// certificate of another type would count as a changed key.
///
/// # Errors
/// [`Error::NoAlgorithm`] if a list ends up empty.
pub(super) fn preferred(ssh: &SshSettings, known: &Known) -> Result<Preferred, Error> {
    let ciphers = if cpu_has_aes() { WITH_AES } else { WITHOUT_AES };
    let cipher = choose("Ciphers", &ssh.ciphers, ciphers, |name| {
        cipher::Name::try_from(name).ok().filter(|c| ![cipher::NONE, cipher::CLEAR].contains(c))
    })?;
    let mut macs = Preferred::DEFAULT.mac.to_vec();
    if cpu_has_sha() {
        // With AES-CTR it is 1.6 times as fast as SHA-512, which has no instructions there (docs/benchmarks.md).
        macs.sort_by_key(|name| *name != mac::HMAC_SHA256_ETM);
    }
    let mac = choose("MACs", &ssh.macs, &macs, |name| mac::Name::try_from(name).ok().filter(|m| *m != mac::NONE))?;
    let (ours, extensions): (Vec<_>, Vec<_>) =
        Preferred::DEFAULT.kex.iter().partition(|name| !KEX_EXTENSIONS.contains(name));
    let mut kex = choose("KexAlgorithms", &ssh.kex_algorithms, &ours, |name| {
        kex::Name::try_from(name).ok().filter(|k| *k != kex::NONE && !KEX_EXTENSIONS.contains(k))
    })?;
    kex.extend(extensions);
    let safe = Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None }));
    let plain = |name: &str| Algorithm::new(name).ok().filter(|a| !matches!(a, Algorithm::Other(_)));
    let mut key = choose("HostKeyAlgorithms", &ssh.host_key_algorithms, &safe.cloned().collect::<Vec<_>>(), plain)?;
    let is_known = |algorithm: &Algorithm| known.types.iter().any(|k| same_key_type(k, algorithm));
    if !matches!(ssh.host_key_algorithms, Algorithms::Exactly(_)) && !key.first().is_some_and(is_known) {
        // A stable sort keeps the order within the known types and within the others.
        key.sort_by_key(|algorithm| !is_known(algorithm));
    }
    let mut certificates = match &ssh.host_key_algorithms {
        Algorithms::Exactly(names) => names.iter().filter_map(|name| certificate(name)).collect(),
        _ => key.clone(),
    };
    certificates
        .retain(|algorithm| known.authority || known.revocations && (known.types.is_empty() || is_known(algorithm)));
    Ok(Preferred {
        host_key_certificates: Cow::Owned(certificates),
        key: Cow::Owned(key),
        cipher: Cow::Owned(cipher),
        mac: Cow::Owned(mac),
        kex: Cow::Owned(kex),
        compression: Cow::Borrowed(if ssh.compression {
            // "zlib@openssh.com" starts after the login, so that zlib is not exposed before it.
            &[compression::ZLIB_LEGACY, compression::ZLIB, compression::NONE]
        } else {
            &[compression::NONE]
        }),
    })
}

/// The key type of a certificate algorithm; None for a plain key's algorithm.
fn certificate(name: &str) -> Option<Algorithm> {
    let algorithm = Algorithm::new_certificate(name).ok()?;
    (!matches!(algorithm, Algorithm::Other(_)) && algorithm.to_certificate_type() == name).then_some(algorithm)
}

/// The names in a key exchange list that announce an extension instead (RFC 8308, strict KEX).
const KEX_EXTENSIONS: [kex::Name; 4] = [
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

fn choose<N: Clone + PartialEq>(
    keyword: &'static str,
    choice: &Algorithms,
    ours: &[N],
    parse: impl Fn(&str) -> Option<N>,
) -> Result<Vec<N>, Error> {
    let parsed = |names: &[String]| -> Vec<N> { names.iter().filter_map(|name| parse(name)).collect() };
    let chosen = match choice {
        Algorithms::Default => ours.to_vec(),
        Algorithms::And(more) => {
            let mut all = ours.to_vec();
            all.extend(parsed(more).into_iter().filter(|name| !ours.contains(name)));
            all
        }
        Algorithms::Exactly(names) => parsed(names),
    };
    if chosen.is_empty() { Err(Error::NoAlgorithm { keyword }) } else { Ok(chosen) }
}

/// Whether PubkeyAcceptedAlgorithms allows a key or certificate of this kind. `name` is that of the
/// signature, such as `rsa-sha2-512`.
pub(super) fn pubkey_accepted(ssh: &SshSettings, name: &str) -> bool {
    match &ssh.pubkey_accepted_algorithms {
        Algorithms::Default => true,
        // A list with `+` only adds older algorithms to the defaults.
        Algorithms::And(_) => true,
        Algorithms::Exactly(names) => names.iter().any(|accepted| accepted == name),
    }
}

/// Whether two algorithm names stand for the same type of key. RSA keys sign with several hashes.
fn same_key_type(a: &Algorithm, b: &Algorithm) -> bool {
    match (a, b) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        _ => a == b,
    }
}

/// The hash for an RSA signature: the best SHA-2 that the server accepts, or `rsa-sha2-512` if it does not say (RFC
/// 8332 section 3.3). None if the server accepts RSA with SHA-1 only.
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

/// Whether the CPU computes SHA-256 itself.
fn cpu_has_sha() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Overrides, resolve};

    fn settings() -> SshSettings {
        let overrides = Overrides { ssh_config: Some("none".into()), ..Overrides::default() };
        resolve("h", &ConfigFile::default(), &overrides, std::path::Path::new("/x")).expect("resolved").ssh
    }

    fn names<N: ToString>(list: &[N]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_with_sha_1_or_cbc_is_offered_and_post_quantum_comes_first() {
        let offered = preferred(&settings(), &Known { authority: true, ..Known::default() }).expect("lists");
        let of = |list: &[String]| list.to_vec();
        let all = [
            of(&offered.cipher.iter().map(|n| n.as_ref().into()).collect::<Vec<_>>()),
            of(&offered.kex.iter().map(|n| n.as_ref().into()).collect::<Vec<_>>()),
            of(&offered.mac.iter().map(|n| n.as_ref().into()).collect::<Vec<_>>()),
            names(&offered.key),
            names(&offered.host_key_certificates),
        ]
        .concat();
        for weak in ["sha1", "cbc", "3des", "dss", "none", "clear"] {
            assert!(!all.iter().any(|name| name.contains(weak)), "{weak} in {all:?}");
        }
        assert!(!all.iter().any(|name| name == "ssh-rsa"));
        assert!(offered.kex[0].as_ref().starts_with("mlkem768x25519"));
        assert!(offered.kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT));
    }

    #[test]
    fn host_keys_are_asked_for_in_the_order_of_ssh() {
        let rsa = Algorithm::Rsa { hash: None };
        let of = |types: &[Algorithm], authority, revocations| {
            let known = Known { types: types.to_vec(), authority, revocations };
            let offered = preferred(&settings(), &known).expect("lists");
            (names(&offered.key), names(&offered.host_key_certificates))
        };
        let (usual, none) = of(&[], false, false);
        assert_eq!((usual[0].as_str(), none.len()), ("ssh-ed25519", 0));
        let (keys, _) = of(std::slice::from_ref(&rsa), false, false);
        assert_eq!((keys[..2].concat(), keys.len()), ("rsa-sha2-512rsa-sha2-256".into(), usual.len()));
        assert_eq!(of(&[rsa.clone(), Algorithm::Ed25519], false, false).0, usual, "the first one is known");
        assert_eq!(
            of(std::slice::from_ref(&rsa), true, false).1.len(),
            usual.len(),
            "all, where there is an authority"
        );
        assert_eq!(of(&[rsa], false, true).1, ["rsa-sha2-512", "rsa-sha2-256"]);
        assert_eq!(of(&[], false, true).1.len(), usual.len());
        let mut ssh = settings();
        ssh.host_key_algorithms =
            Algorithms::Exactly(vec!["ssh-ed25519".into(), "ecdsa-sha2-nistp256-cert-v01@openssh.com".into()]);
        let offered = preferred(&ssh, &Known { authority: true, ..Known::default() }).expect("lists");
        assert_eq!(names(&offered.host_key_certificates), ["ecdsa-sha2-nistp256"], "those that the list names");
    }

    #[test]
    fn the_mac_that_the_cpu_computes_itself_comes_first() {
        let offered = preferred(&settings(), &Known::default()).expect("lists");
        let first = if cpu_has_sha() { mac::HMAC_SHA256_ETM } else { mac::HMAC_SHA512_ETM };
        assert_eq!((offered.mac[0], offered.mac.len()), (first, Preferred::DEFAULT.mac.len()));
    }

    #[test]
    fn ssh_config_adds_to_a_list_or_replaces_it() {
        let mut ssh = settings();
        ssh.ciphers = Algorithms::And(vec!["aes256-cbc".into(), "none".into()]);
        ssh.macs = Algorithms::Exactly(vec!["umac-64@openssh.com".into(), "hmac-sha1".into()]);
        ssh.host_key_algorithms = Algorithms::Exactly(vec!["ssh-rsa".into(), "ssh-ed25519".into()]);
        let offered = preferred(&ssh, &Known { types: vec![Algorithm::Ed25519], ..Known::default() }).expect("lists");
        assert_eq!(offered.cipher.last(), Some(&cipher::AES_256_CBC));
        assert_eq!(offered.cipher.len(), WITH_AES.len() + 1);
        assert_eq!(offered.mac[..], [mac::HMAC_SHA1]);
        assert_eq!(names(&offered.key), ["ssh-rsa", "ssh-ed25519"], "the user's order");
        ssh.ciphers = Algorithms::Exactly(vec!["none".into()]);
        assert!(matches!(preferred(&ssh, &Known::default()), Err(Error::NoAlgorithm { keyword: "Ciphers" })));
    }
}
