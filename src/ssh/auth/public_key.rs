//! Public key login (RFC 4252 section 7), one key after another.

use std::path::Path;
use std::sync::Arc;

use russh::MethodKind;
use russh::keys::agent::Constraint;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, PrivateKey};

use super::candidates::{AGENT_TIMEOUT, Candidate, Source};
use super::{Attempt, Login};
use crate::config::Proxy;
use crate::os::agent;
use crate::shell_word::shell_word;
use crate::ssh::agent_signer::{AgentSigner, Refusal};
use crate::ssh::algorithms::{pubkey_accepted, rsa_hash};
use crate::ssh::error::Error;
use crate::ssh::host_key::rsa_bits;
use crate::ssh::keys::{FileSigner, LoadError, load_key};
use crate::text::shown as printable;

impl Login<'_> {
    pub(super) async fn public_keys(&mut self) -> Result<Attempt, Error> {
        let mut agent = self.agent().await;
        let mut last = Attempt::Nothing;
        let mut server_rsa = None;
        for candidate in self.candidates(agent.as_mut()).await {
            let public = match &candidate.source {
                Source::Agent { key, .. } => key.clone(),
                Source::File { public: Some(key), .. } => key.clone(),
                // The public key is encrypted as well (an old PEM file without .pub).
                Source::File { path, public: None } => match self.unlock(path).await {
                    Some(key) => key.public_key().clone(),
                    None => continue,
                },
            };
            let least = self.target.ssh.required_rsa_size;
            if let Some(bits) = rsa_bits(&public).filter(|bits| *bits < least) {
                self.skip(candidate.label(), format!("it has {bits} bits, and RequiredRSASize is {least}"), None);
                continue;
            }
            let hash = if matches!(public.algorithm(), Algorithm::Rsa { .. }) {
                if server_rsa.is_none() {
                    server_rsa = Some(self.handle.best_supported_rsa_hash().await.unwrap_or_default());
                }
                match rsa_hash(server_rsa.flatten()) {
                    Some(hash) => Some(hash),
                    None => continue,
                }
            } else {
                None
            };
            let signature = match public.algorithm() {
                Algorithm::Rsa { .. } => Algorithm::Rsa { hash },
                other => other,
            };
            let name = match &candidate.certificate {
                Some(_) => signature.to_certificate_type(),
                None => signature.to_string(),
            };
            if !pubkey_accepted(&self.target.ssh, &name) {
                tracing::info!("{}: not offered, PubkeyAcceptedAlgorithms has no {name}", candidate.label());
                self.skip(candidate.label(), format!("PubkeyAcceptedAlgorithms has no {name}"), None);
                continue;
            }
            // Counts as refused until the server accepts it.
            self.tried.refused.push(candidate.label());
            let user = self.target.ssh.user.clone();
            let handle = &mut *self.handle;
            let mut refusal = None;
            let result = match (&candidate.source, agent.as_mut()) {
                (Source::Agent { .. }, Some(agent)) => {
                    let mut signer = AgentSigner {
                        agent,
                        holds_certificate: candidate.agent_holds_certificate,
                        prompter: &self.context.prompter,
                        credentials: &self.context.credentials,
                        on_step: &self.context.on_step,
                        refusal: None,
                    };
                    let result = match candidate.certificate.clone() {
                        Some(cert) => handle.authenticate_certificate_with(user, cert, hash, &mut signer).await,
                        None => handle.authenticate_publickey_with(user, public, hash, &mut signer).await,
                    };
                    refusal = signer.refusal;
                    result.map_err(|error| error.0)
                }
                (Source::File { path, .. }, _) => {
                    let mut signer = FileSigner::new(path, &self.context.prompter, &self.context.credentials);
                    let result = match candidate.certificate.clone() {
                        Some(cert) => handle.authenticate_certificate_with(user, cert, hash, &mut signer).await,
                        None => handle.authenticate_publickey_with(user, public, hash, &mut signer).await,
                    };
                    if signer.nobody {
                        self.need(format!("the passphrase of {}", path.display()));
                    }
                    result.map_err(|error| error.0)
                }
                (Source::Agent { .. }, None) => continue,
            };
            match result {
                Ok(result) => {
                    self.still_open().await?;
                    match Attempt::from(result) {
                        Attempt::Failure(set) if set.contains(&MethodKind::PublicKey) => {
                            self.note_refused(&candidate);
                            last = Attempt::Failure(set);
                        }
                        done => {
                            match done {
                                Attempt::Failure(_) => self.note_refused(&candidate),
                                _ => self.accepted(),
                            }
                            if let (Attempt::Success | Attempt::Partial(_), Source::File { path, .. }, Some(agent)) =
                                (&done, &candidate.source, agent.as_mut())
                            {
                                self.add_to_agent(path, agent).await;
                            }
                            return Ok(done);
                        }
                    }
                }
                // The server did not refuse the key: the signature failed.
                Err(message) => {
                    self.still_open().await?;
                    tracing::warn!("{}: {message}", candidate.label());
                    self.tried.refused.pop();
                    let fix = refusal.map(|refusal| refusal.fix().to_owned());
                    self.skip(candidate.label(), printable(&message), fix);
                    if matches!(refusal, Some(Refusal::Silent)) {
                        // The agent's late answer would be taken for that to the next request.
                        agent = None;
                    }
                }
            }
        }
        Ok(last)
    }

    /// AddKeysToAgent: adds the key that logged in to the agent. A failure is only logged.
    async fn add_to_agent(&self, path: &Path, agent: &mut AgentClient<agent::Stream>) {
        let Some(how) = self.target.ssh.add_keys_to_agent.filter(|_| !self.context.looks_only) else { return };
        let Ok(key) = load_key(path, &self.context.prompter, &self.context.credentials).await else { return };
        let mut constraints: Vec<_> =
            how.lifetime.map(|seconds| Constraint::KeyLifetime { seconds }).into_iter().collect();
        if how.confirm {
            constraints.push(Constraint::Confirm);
        }
        match tokio::time::timeout(AGENT_TIMEOUT, agent.add_identity(&key, &constraints)).await {
            Ok(Ok(())) => tracing::info!("added {} to the ssh-agent", path.display()),
            Ok(Err(e)) => tracing::warn!("could not add {} to the ssh-agent: {e}", path.display()),
            Err(_) => tracing::warn!("could not add {} to the ssh-agent: it does not answer", path.display()),
        }
    }

    async fn unlock(&mut self, path: &Path) -> Option<Arc<PrivateKey>> {
        match load_key(path, &self.context.prompter, &self.context.credentials).await {
            Ok(key) => Some(key),
            Err(LoadError::Nobody) => {
                self.need(format!("the passphrase of {}", path.display()));
                None
            }
            Err(LoadError::Other(message)) => {
                tracing::warn!("{message}");
                // The agent may be able to use this key; if not, it reports its own error.
                let fix = format!("ssh-add {}", shell_word(&path.to_string_lossy()));
                self.skip(path.display().to_string(), printable(&message), Some(fix));
                None
            }
        }
    }

    /// Records a hint for a refused key: the line that installs it on the host.
    fn note_refused(&mut self, candidate: &Candidate) {
        let ssh = &self.target.ssh;
        let port = if ssh.port == 22 { String::new() } else { format!(" -p {}", ssh.port) };
        // Over a jump host or ProxyCommand, the alias stands for the whole route.
        let place = match ssh.proxy {
            Proxy::None => format!("{port} {}", self.account),
            _ => format!(" {}@{}", ssh.user, self.target.destination.host),
        };
        let copy = match (&candidate.source, &candidate.certificate) {
            (_, Some(_)) => return,
            (Source::File { path, .. }, None) => {
                let mut public = path.as_os_str().to_owned();
                public.push(".pub");
                let named = if Path::new(&public).exists() { Path::new(&public) } else { path.as_path() };
                format!("ssh-copy-id -i {}{place}", shell_word(&named.to_string_lossy()))
            }
            (Source::Agent { .. }, None) => format!("ssh-copy-id{place}"),
        };
        let fix = format!("if you can log in there another way, install it: {copy}");
        self.tried.copy_id.get_or_insert(fix);
    }
}
