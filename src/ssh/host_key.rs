//! Is this the host we mean? The decision ssh makes between key exchange and login.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::error::Error;
use super::known_hosts::{KnownKey, KnownKeys, Verdict, append, glob, lookup_name, other_names};
use super::prompter::{Prompter, Question};
use crate::config::{HostKeyPolicy, Target};

/// How often a person may give an answer that is none.
const MAX_ANSWERS: usize = 3;
/// Most keys learnt from one announcement: a host has a handful.
const MAX_LEARNT: usize = 16;

/// Checks the keys of one host.
#[derive(Debug)]
pub(super) struct Verifier {
    target: Target,
    /// The name in known_hosts.
    name: String,
    known: KnownKeys,
    /// What is known of the name without its port; asked where nothing is known of the key else.
    known_without_port: Option<KnownKeys>,
    prompter: Prompter,
    /// Was the host trusted by a plain key of its own in the user's files? Only then may it tell of
    /// others.
    may_teach: AtomicBool,
}

impl Verifier {
    /// Reads what is known of the target's host.
    pub(super) fn new(target: &Target, prompter: &Prompter) -> Self {
        let ssh = &target.ssh;
        let name = match &ssh.host_key_alias {
            Some(alias) => alias.to_ascii_lowercase(),
            None => lookup_name(&ssh.host_name, ssh.port),
        };
        let known = KnownKeys::of(&name, &files(target));
        // As ssh: a host on another port may be known by its plain name alone.
        let known_without_port = (ssh.port != 22 && ssh.host_key_alias.is_none())
            .then(|| KnownKeys::of(&ssh.host_name.to_ascii_lowercase(), &files(target)));
        Self {
            target: target.clone(),
            name,
            known,
            known_without_port,
            prompter: prompter.clone(),
            may_teach: AtomicBool::new(false),
        }
    }

    /// The types of the keys that are known.
    pub(super) fn known_types(&self) -> Vec<Algorithm> {
        self.known.key_types()
    }

    /// Is a certificate worth asking for?
    pub(super) fn has_authority(&self) -> bool {
        let among = |known: &KnownKeys| known.authorities().next().is_some();
        among(&self.known) || self.known.key_types().is_empty() && self.known_without_port.as_ref().is_some_and(among)
    }

    /// Decides. Ok means: go on. A certificate that is not good enough is looked at as the plain
    /// key that it is about, as ssh does.
    ///
    /// # Errors
    /// [`Error::HostKeyChanged`], [`Error::HostKeyRevoked`], [`Error::HostKeyUnknown`].
    pub(super) async fn verify(&self, presented: &PublicKeyOrCertificate) -> Result<(), Error> {
        let key = &presented.public_key();
        let verdict = self.known.check(key);
        if let Some(certificate) = presented.certificate()
            && !matches!(verdict, Verdict::Revoked(_))
        {
            match self.check_certificate(certificate, &self.known) {
                Ok(()) => return Ok(()),
                Err(reason) => tracing::warn!("the host certificate of {} was not accepted: {reason}", self.name),
            }
        }
        match verdict {
            Verdict::Known => {
                let users = KnownKeys::of(&self.name, &self.target.ssh.user_known_hosts);
                self.may_teach.store(matches!(users.check(key), Verdict::Known), Relaxed);
                Ok(())
            }
            Verdict::Revoked(KnownKey { file, line, .. }) => {
                Err(Error::HostKeyRevoked { host: self.name.clone(), file, line })
            }
            Verdict::Changed(known) => {
                let error = Error::HostKeyChanged {
                    host: self.name.clone(),
                    expected_type: type_name(&known.key),
                    expected: fingerprint(&known.key),
                    file: known.file,
                    line: known.line,
                    key_type: type_name(key),
                    fingerprint: fingerprint(key),
                };
                if self.target.ssh.host_key_policy != HostKeyPolicy::Off {
                    return Err(error);
                }
                tracing::warn!("StrictHostKeyChecking is off: {error}");
                Ok(())
            }
            Verdict::Unknown if self.is_known_without_port(presented) => Ok(()),
            Verdict::Unknown => self.decide_on_unknown(key).await,
        }
    }

    fn is_known_without_port(&self, presented: &PublicKeyOrCertificate) -> bool {
        self.known_without_port.as_ref().is_some_and(|known| match known.check(&presented.public_key()) {
            Verdict::Known => true,
            Verdict::Revoked(_) => false,
            Verdict::Unknown | Verdict::Changed(_) => {
                presented.certificate().is_some_and(|certificate| self.check_certificate(certificate, known).is_ok())
            }
        })
    }

    /// Is this host named by a certificate of an authority that is trusted for it (PROTOCOL.certkeys
    /// of OpenSSH)?
    fn check_certificate(&self, certificate: &Certificate, known: &KnownKeys) -> Result<(), &'static str> {
        let trusted: Vec<_> = known.authorities().map(|key| key.fingerprint(HashAlg::Sha256)).collect();
        if !trusted.contains(&certificate.signature_key().fingerprint(HashAlg::Sha256)) {
            return Err("its authority is not known for this host");
        }
        if certificate.cert_type() != CertType::Host {
            return Err("it is not a host's");
        }
        if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None }) {
            return Err("it is signed with SHA-1");
        }
        if !certificate.critical_options().is_empty() {
            return Err("it has critical options, of which none is known for hosts");
        }
        // No principals: any name, as for ssh.
        let principals = certificate.valid_principals();
        let name = self.target.ssh.host_key_alias.as_ref().unwrap_or(&self.target.ssh.host_name).to_ascii_lowercase();
        if !principals.is_empty() && !principals.iter().any(|pattern| glob(&pattern.to_ascii_lowercase(), &name)) {
            return Err("it names other hosts");
        }
        certificate.validate(&trusted).map_err(|_| "it has expired, is not valid yet, or its signature is wrong")
    }

    async fn decide_on_unknown(&self, key: &PublicKey) -> Result<(), Error> {
        let refused = |reason| Error::HostKeyUnknown {
            host: self.name.clone(),
            key_type: type_name(key),
            fingerprint: fingerprint(key),
            reason,
        };
        match self.target.ssh.host_key_policy {
            HostKeyPolicy::Strict => return Err(refused("StrictHostKeyChecking is yes")),
            HostKeyPolicy::Ask if self.target.read_only => return Err(refused("is not asked about here")),
            HostKeyPolicy::AcceptNew | HostKeyPolicy::Off => {}
            HostKeyPolicy::Ask => self.ask(key).await.map_err(refused)?,
        }
        self.remember(key);
        self.may_teach.store(self.target.ssh.host_key_policy != HostKeyPolicy::Off, Relaxed);
        Ok(())
    }

    /// Which of the keys that the host says it has are worth a proof: new ones of a trusted host
    /// (UpdateHostKeys in ssh_config(5)).
    pub(super) fn worth_learning(&self, announced: Vec<PublicKey>) -> Vec<PublicKey> {
        if !self.target.ssh.update_host_keys || !self.may_teach.load(Relaxed) {
            return Vec::new();
        }
        let known = KnownKeys::of(&self.name, &files(&self.target));
        let is_new = |key: &PublicKey| matches!(known.check(key), Verdict::Unknown | Verdict::Changed(_));
        announced.into_iter().filter(is_new).take(MAX_LEARNT).collect()
    }

    async fn ask(&self, key: &PublicKey) -> Result<(), &'static str> {
        let fingerprint = fingerprint(key);
        let question = Question::HostKey {
            host: self.name.clone(),
            key_type: type_name(key),
            fingerprint: fingerprint.clone(),
            also_known_as: other_names(key, &files(&self.target)),
        };
        for _ in 0..MAX_ANSWERS {
            let Some(answer) = self.prompter.ask(question.clone()).await else {
                return Err("nobody was there to confirm it");
            };
            match answer.reveal().trim() {
                "yes" => return Ok(()),
                "no" => return Err("it was not accepted"),
                other if other == fingerprint => return Ok(()),
                _ => {}
            }
        }
        Err("it was not accepted")
    }

    /// Writes the key down. That it could not be written does not make it less trusted.
    pub(super) fn remember(&self, key: &PublicKey) {
        let Some(file) = self.target.ssh.user_known_hosts.first().filter(|_| !self.target.read_only) else { return };
        match append(file, &self.name, self.target.ssh.hash_known_hosts, key) {
            Ok(()) => {
                tracing::info!("added {} {} of {} to {}", type_name(key), fingerprint(key), self.name, file.display());
            }
            Err(e) => tracing::warn!("could not add the host key to {}: {e}", file.display()),
        }
    }
}

fn files(target: &Target) -> Vec<std::path::PathBuf> {
    target.ssh.user_known_hosts.iter().chain(&target.ssh.global_known_hosts).cloned().collect()
}

/// `SHA256:…`, as ssh shows it.
fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// `ED25519`, `ECDSA`, `RSA`: ssh's words for people.
fn type_name(key: &PublicKey) -> String {
    match key.algorithm() {
        Algorithm::Ed25519 => "ED25519".into(),
        Algorithm::Ecdsa { .. } => "ECDSA".into(),
        Algorithm::Rsa { .. } => "RSA".into(),
        other => other.to_string(),
    }
}
