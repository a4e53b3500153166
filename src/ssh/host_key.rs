//! Host key verification, between key exchange and login.

use std::net::IpAddr;
use std::sync::OnceLock;

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::algorithms::Known;
use super::confirm::confirm;
use super::error::{Error, Unconfirmed};
use super::identity::{Identity, Trust, TrustedBy, fingerprint};
use super::known_hosts::{HostKeyVerdict, KnownKey, KnownKeys, append, is_plain_name, lookup_name, other_names};
use super::prompter::{Prompter, Question};
use super::revoked;
use crate::config::{Algorithms, HostKeyPolicy, Target};

/// Checks the keys of a host.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) target: Target,
    /// The host's name in known_hosts.
    pub(super) name: String,
    known: KnownKeys,
    /// The known keys of the name without its port; used if nothing else is known of the key.
    known_without_port: Option<KnownKeys>,
    /// CheckHostIP: the address's name in known_hosts, and its known keys.
    of_address: Option<(String, KnownKeys)>,
    /// The address, if the host was reached directly.
    address: Option<IpAddr>,
    prompter: Prompter,
    /// Whether the caller only inspects the host. If so, no key is asked about or stored.
    pub(super) looks_only: bool,
    /// Set once the host is trusted.
    trust: OnceLock<Trust>,
}

impl Verifier {
    /// Reads the known keys of the target's host. `address` is set if it was reached directly.
    pub(super) fn new(target: &Target, prompter: &Prompter, looks_only: bool, address: Option<IpAddr>) -> Self {
        let ssh = &target.ssh;
        let name = known_name(target);
        let known = KnownKeys::of(&name, &files(target));
        let known_without_port = known_without_port(target);
        let of_address = address
            .filter(|ip| ssh.check_host_ip && !ip.is_loopback() && ip.to_string() != ssh.host_name)
            .map(|ip| lookup_name(&ip.to_string(), ssh.port))
            .map(|name| (name.clone(), KnownKeys::of(&name, &files(target))));
        Self {
            target: target.clone(),
            name,
            known,
            known_without_port,
            of_address,
            address,
            prompter: prompter.clone(),
            looks_only,
            trust: OnceLock::new(),
        }
    }

    /// The known keys' effect on the host key algorithms.
    pub(super) fn known(&self) -> Known {
        let all = || [Some(&self.known), self.known_without_port.as_ref()].into_iter().flatten();
        let types = self.known.key_types();
        let elsewhere = self.known_without_port.as_ref().filter(|_| types.is_empty());
        let authority = [Some(&self.known), elsewhere].into_iter().flatten().any(|k| k.authorities().next().is_some());
        let revocations = !self.target.ssh.revoked_host_keys.is_empty() || all().any(KnownKeys::has_revoked);
        Known { types, authority, revocations }
    }

    /// Why the host is trusted; None before that.
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.trust.get()
    }

    /// Decides whether to trust the host; Ok means yes. Like ssh, it checks the plain key of a certificate that is not
    /// valid. Unlike ssh, it never continues with fewer features (StrictHostKeyChecking no with a changed or revoked
    /// key), since a tunnel needs forwarding.
    ///
    /// # Errors
    /// [`Error::HostKeyChanged`], [`Error::HostKeyRevoked`], [`Error::HostKeyUncheckable`], [`Error::HostKeyUnknown`].
    pub(super) async fn verify(&self, presented: &PublicKeyOrCertificate) -> Result<(), Error> {
        // Read again: a ProxyCommand may have written a file of known hosts since (FreeIPA's sss_ssh_knownhostsproxy).
        let now = Self::new(&self.target, &self.prompter, self.looks_only, self.address);
        let (by, authority) = now.trusted_by(presented).await?;
        let trust = Trust { key: Identity::of_key(&presented.public_key()), authority, by };
        // Set once: russh verifies the key at the first key exchange only.
        let _ = self.trust.set(trust);
        Ok(())
    }

    /// What makes the host trusted, and the authority, if it is one.
    async fn trusted_by(&self, presented: &PublicKeyOrCertificate) -> Result<(TrustedBy, Option<Identity>), Error> {
        let key = &presented.public_key();
        self.check_revocations(presented)?;
        self.check_size(key)?;
        // As ssh: the name is that of many machines where a home directory is shared.
        let ssh = &self.target.ssh;
        let is_this_machine = self.address.is_some_and(|address| address.to_canonical().is_loopback());
        if ssh.trusts_localhost && is_this_machine && ssh.host_key_alias.is_none() {
            return Ok((TrustedBy::Nobody, None));
        }
        if let Some(certificate) = presented.certificate() {
            for known in [Some(&self.known), self.known_without_port.as_ref()].into_iter().flatten() {
                match self.check_certificate(certificate, known) {
                    Ok(()) => {
                        let authority = PublicKey::new(certificate.signature_key().clone(), "");
                        return Ok((TrustedBy::Known, Some(Identity::of_authority(&authority))));
                    }
                    Err(reason) if known.authorities().next().is_some() => {
                        tracing::warn!("the host certificate of {} was not accepted: {reason}", self.name);
                    }
                    Err(_) => {}
                }
            }
        }
        if let HostKeyVerdict::Changed(known) = self.known.check(key) {
            return Err(changed(&self.name, key, known));
        }
        if let Some((name, known)) = &self.of_address
            && let HostKeyVerdict::Changed(known) = known.check(key)
        {
            return Err(changed(name, key, known));
        }
        if matches!(self.known.check(key), HostKeyVerdict::Known) {
            let users = KnownKeys::of(&self.name, &self.target.ssh.user_known_hosts);
            let in_users_file = matches!(users.check(key), HostKeyVerdict::Known);
            return Ok((if in_users_file { TrustedBy::UsersFile } else { TrustedBy::Known }, None));
        }
        // As in ssh, another key under the name without its port does not count as a change.
        match &self.known_without_port {
            Some(known) if matches!(known.check(key), HostKeyVerdict::Known) => Ok((TrustedBy::Known, None)),
            _ => self.decide_on_unknown(key).await.map(|by| (by, None)),
        }
    }

    /// Fails if the key, or the authority that signed it, is revoked, or if that cannot be checked.
    fn check_revocations(&self, presented: &PublicKeyOrCertificate) -> Result<(), Error> {
        let ssh = &self.target.ssh;
        let host = || self.name.clone();
        if ssh.known_hosts_command.is_some() {
            let reason = "ssh_config sets KnownHostsCommand for it, which dtunnel does not run".into();
            return Err(Error::HostKeyUncheckable { host: host(), reason });
        }
        let key = presented.public_key();
        let mut keys = vec![key.key_data()];
        keys.extend(presented.certificate().map(Certificate::signature_key));
        for file in &ssh.revoked_host_keys {
            let place = file.display().to_string();
            match revoked::lists(file, key.key_data(), presented.certificate()) {
                Ok(false) => {}
                Ok(true) => return Err(Error::HostKeyRevoked { host: host(), place }),
                Err(reason) => {
                    let reason = format!("{place} (RevokedHostKeys in ssh_config) {reason}");
                    return Err(Error::HostKeyUncheckable { host: host(), reason });
                }
            }
        }
        let of_address = self.of_address.as_ref().map(|(_, known)| known);
        let all = [Some(&self.known), self.known_without_port.as_ref(), of_address];
        let all = || all.into_iter().flatten();
        if let Some(KnownKey { file, line, .. }) = all().find_map(|known| known.revoked(&keys)) {
            return Err(Error::HostKeyRevoked { host: host(), place: format!("{}:{line}", file.display()) });
        }
        match all().find_map(KnownKeys::unread) {
            Some(reason) => Err(Error::HostKeyUncheckable { host: host(), reason: reason.into() }),
            None => Ok(()),
        }
    }

    /// Checks RequiredRSASize.
    fn check_size(&self, key: &PublicKey) -> Result<(), Error> {
        let least = self.target.ssh.required_rsa_size;
        match rsa_bits(key) {
            Some(bits) if bits < least => {
                let reason = format!("it is an RSA key of {bits} bits, and RequiredRSASize in ssh_config is {least}");
                Err(Error::HostKeyUncheckable { host: self.name.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Checks that a trusted authority's certificate names this host (PROTOCOL.certkeys of OpenSSH).
    fn check_certificate(&self, certificate: &Certificate, known: &KnownKeys) -> Result<(), &'static str> {
        let trusted: Vec<_> = known.authorities().map(|key| key.fingerprint(HashAlg::Sha256)).collect();
        if !trusted.contains(&certificate.signature_key().fingerprint(HashAlg::Sha256)) {
            return Err("its authority is not known for this host");
        }
        if certificate.cert_type() != CertType::Host {
            return Err("it is not a host certificate");
        }
        let signed = certificate.signature().algorithm();
        if matches!(signed, Algorithm::Rsa { hash: None }) {
            return Err("it is signed with SHA-1");
        }
        if let Algorithms::Exactly(names) = &self.target.ssh.ca_signature_algorithms
            && !names.contains(&signed.to_string())
        {
            return Err("CASignatureAlgorithms does not allow its signature");
        }
        if !certificate.critical_options().is_empty() {
            return Err("it has critical options, and none is defined for hosts");
        }
        // No principals: any name. They are names and no patterns, both as for ssh up to 10 (which has
        // patterns, and takes none for no name).
        let principals = certificate.valid_principals();
        let name = self.target.ssh.host_key_alias.as_ref().unwrap_or(&self.target.ssh.host_name).to_ascii_lowercase();
        if !principals.is_empty() && !principals.contains(&name) {
            return Err("it names other hosts");
        }
        certificate.validate(&trusted).map_err(|_| "it has expired, is not valid yet, or its signature is wrong")
    }

    async fn decide_on_unknown(&self, key: &PublicKey) -> Result<TrustedBy, Error> {
        let refused = |reason| Error::HostKeyUnknown {
            host: self.name.clone(),
            key_type: type_name(key),
            fingerprint: fingerprint(key),
            reason,
        };
        if !is_plain_name(&self.target.ssh.host_name) {
            return Err(refused(Unconfirmed::OddName));
        }
        // As in ssh ("If there are no hostfiles [...] then don't try to touch the disk"): the host
        // would be new at every connection.
        if self.target.ssh.user_known_hosts.is_empty() {
            return Err(refused(Unconfirmed::NoFile));
        }
        let by = match self.target.ssh.host_key_policy {
            HostKeyPolicy::Strict => return Err(refused(Unconfirmed::Strict)),
            HostKeyPolicy::Ask if self.looks_only => return Err(refused(Unconfirmed::NotAsked)),
            HostKeyPolicy::AcceptNew | HostKeyPolicy::Off => TrustedBy::Nobody,
            HostKeyPolicy::Ask => {
                self.ask(key).await.map_err(refused)?;
                TrustedBy::Person
            }
        };
        self.remember(key);
        Ok(by)
    }

    /// Whether an announced key passes the checks of revocation and size.
    pub(super) fn is_good(&self, key: &PublicKey) -> bool {
        self.check_revocations(&PublicKeyOrCertificate::from(key.clone())).is_ok() && self.check_size(key).is_ok()
    }

    async fn ask(&self, key: &PublicKey) -> Result<(), Unconfirmed> {
        let fingerprint = fingerprint(key);
        let question = Question::HostKey {
            host: self.name.clone(),
            key_type: type_name(key),
            fingerprint: fingerprint.clone(),
            also_known_as: other_names(key, &files(&self.target)),
        };
        let read = |answer: &str| match answer {
            "yes" => Some(true),
            "no" => Some(false),
            other => (other == fingerprint).then_some(true),
        };
        match confirm(&self.prompter, &question, read).await {
            Some(true) => Ok(()),
            Some(false) => Err(Unconfirmed::Refused),
            None => Err(Unconfirmed::Nobody),
        }
    }

    /// Adds the key to known_hosts. A failure is only logged: the key stays trusted.
    pub(super) fn remember(&self, key: &PublicKey) {
        let Some(file) = self.target.ssh.user_known_hosts.first().filter(|_| !self.looks_only) else { return };
        match append(file, &self.name, self.target.ssh.hash_known_hosts, key) {
            Ok(()) => {
                tracing::info!("added {} {} of {} to {}", type_name(key), fingerprint(key), self.name, file.display());
            }
            Err(e) => tracing::warn!("could not add the host key to {}: {e}", file.display()),
        }
    }
}

/// The host's name in known_hosts: its HostKeyAlias, else `host` or `[host]:port`.
pub(super) fn known_name(target: &Target) -> String {
    match &target.ssh.host_key_alias {
        Some(alias) => alias.to_ascii_lowercase(),
        None => lookup_name(&target.ssh.host_name, target.ssh.port),
    }
}

/// The known keys of the name without its port. As in ssh, they count for a host on another port.
fn known_without_port(target: &Target) -> Option<KnownKeys> {
    let ssh = &target.ssh;
    (ssh.port != 22 && ssh.host_key_alias.is_none())
        .then(|| KnownKeys::of(&ssh.host_name.to_ascii_lowercase(), &files(target)))
}

/// The host's known keys and authorities. A password stored by the user is bound to them.
pub fn known_identities(target: &Target) -> Vec<Identity> {
    let known = KnownKeys::of(&known_name(target), &files(target));
    match (known.identities(), known_without_port(target)) {
        (found, Some(elsewhere)) if found.is_empty() => elsewhere.identities(),
        (found, _) => found,
    }
}

fn changed(host: &str, key: &PublicKey, known: KnownKey) -> Error {
    Error::HostKeyChanged {
        host: host.into(),
        expected_type: type_name(&known.key),
        expected: fingerprint(&known.key),
        file: known.file,
        line: known.line,
        key_type: type_name(key),
        fingerprint: fingerprint(key),
    }
}

fn files(target: &Target) -> Vec<std::path::PathBuf> {
    target.ssh.user_known_hosts.iter().chain(&target.ssh.global_known_hosts).cloned().collect()
}

/// Formats as `ED25519 SHA256:…`.
pub(super) fn fingerprint_and_type(key: &PublicKey) -> String {
    format!("{} {}", type_name(key), fingerprint(key))
}

/// The size of an RSA key, in bits; None for other types.
pub(super) fn rsa_bits(key: &PublicKey) -> Option<u32> {
    let modulus = key.key_data().rsa()?.n().as_positive_bytes()?;
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros());
    u32::try_from(modulus.len() * 8).ok()?.checked_sub(leading)
}

/// The key's type in ssh's words: `ED25519`, `ECDSA`, `RSA`.
fn type_name(key: &PublicKey) -> String {
    match key.algorithm() {
        Algorithm::Ed25519 => "ED25519".into(),
        Algorithm::Ecdsa { .. } => "ECDSA".into(),
        Algorithm::Rsa { .. } => "RSA".into(),
        other => other.to_string(),
    }
}
