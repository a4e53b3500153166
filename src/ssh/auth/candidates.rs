//! The keys to offer, from the agent and from files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Certificate, PublicKey};

use super::Login;
use crate::config::IdentityAgent;
use crate::os::agent;
use crate::ssh::error::Skipped;
use crate::ssh::keys::{KeyFile, read_certificate};
use crate::text::shown as printable;

/// Longest wait for an ssh-agent's list of keys.
pub(super) const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A key to offer, plain or with a certificate.
pub(super) struct Candidate {
    pub(super) source: Source,
    pub(super) certificate: Option<Certificate>,
    /// Whether the agent, rather than a file, holds the certificate.
    pub(super) agent_holds_certificate: bool,
}

/// The location of the private key.
#[derive(Clone)]
pub(super) enum Source {
    Agent { key: PublicKey, comment: String },
    File { path: PathBuf, public: Option<PublicKey> },
}

impl Candidate {
    pub(super) fn label(&self) -> String {
        let key = match &self.source {
            Source::Agent { comment, .. } => format!("key `{}` of the ssh-agent", printable(comment)),
            Source::File { path, .. } => path.display().to_string(),
        };
        match &self.certificate {
            Some(certificate) => format!("{key} with certificate `{}`", printable(certificate.key_id())),
            None => key,
        }
    }
}

impl Login<'_> {
    /// The first of the user's agents that answers.
    pub(super) async fn agent(&mut self) -> Option<AgentClient<agent::Stream>> {
        let sockets = match &self.target.ssh.identity_agent {
            IdentityAgent::None => return None,
            IdentityAgent::Path(path) => vec![path.clone()],
            IdentityAgent::Environment => self.context.credentials.agents(),
        };
        let first = sockets.first()?;
        if self.context.credentials.agent_asks() && !self.context.prompter.disturbs() {
            let why = "it asks its owner, and further connections ask nobody".into();
            self.skip(format!("the ssh-agent at {}", first.display()), why, None);
            return None;
        }
        let mut failures = Vec::new();
        for socket in &sockets {
            match self.connect_agent(socket).await {
                Ok(agent) => return Some(agent),
                Err(why) => failures.push((format!("the ssh-agent at {}", socket.display()), why)),
            }
        }
        for (agent, why) in failures {
            tracing::warn!("{agent}: {why}");
            self.skip(agent, why, None);
        }
        None
    }

    async fn connect_agent(&self, socket: &Path) -> Result<AgentClient<agent::Stream>, String> {
        let too_late = |_| "it does not answer".to_owned();
        let connected = tokio::time::timeout(AGENT_TIMEOUT, agent::connect(socket)).await;
        let stream = connected.map_err(too_late)?.map_err(|e| e.to_string())?;
        let mut agent = AgentClient::connect(stream);
        // Required for keys restricted to certain hosts (ssh-add -h). Agents other than OpenSSH's don't know it and don't
        // need it.
        if let Some(binding) = self.handle.agent_session_binding() {
            let _ = tokio::time::timeout(AGENT_TIMEOUT, agent.bind_session(binding, false)).await.map_err(too_late)?;
        }
        Ok(agent)
    }

    /// The keys to offer, in ssh's order: the agent's keys named in ssh_config, the agent's other keys unless
    /// IdentitiesOnly is set, then the files whose keys the agent does not hold. A certificate goes before its key.
    pub(super) async fn candidates(&mut self, agent: Option<&mut AgentClient<agent::Stream>>) -> Vec<Candidate> {
        let mut held: Vec<(PublicKey, String)> = Vec::new();
        let mut held_certificates: Vec<(Certificate, String)> = Vec::new();
        if let Some(agent) = agent {
            match tokio::time::timeout(AGENT_TIMEOUT, agent.request_identities()).await {
                Ok(Ok(identities)) => identities.into_iter().for_each(|identity| match identity {
                    AgentIdentity::PublicKey { key, comment } => held.push((key, comment)),
                    AgentIdentity::Certificate { certificate, comment } => {
                        held_certificates.push((certificate, comment));
                    }
                }),
                Ok(Err(e)) => self.skip("the ssh-agent".into(), format!("it did not list its keys: {e}"), None),
                Err(_) => self.skip("the ssh-agent".into(), "it did not list its keys in time".into(), None),
            }
        }
        let target = self.target;
        let ssh = &target.ssh;
        let extra: Vec<Certificate> = ssh.certificate_files.iter().filter_map(|file| read_certificate(file)).collect();
        let mut named = Vec::new();
        let mut files = Vec::new();
        for path in &ssh.identity_files {
            let Some(mut file) = KeyFile::find(path) else {
                if !is_ssh_default(path) {
                    self.skip(path.display().to_string(), "there is no such file".into(), None);
                }
                continue;
            };
            let same = |key: &PublicKey| file.public.as_ref().is_some_and(|public| key.key_data() == public.key_data());
            let about = |certificate: &&Certificate| {
                file.public.as_ref().is_some_and(|public| certificate.public_key() == public.key_data())
            };
            let certificates: Vec<Certificate> =
                file.certificate.iter().chain(extra.iter().filter(about)).cloned().collect();
            let at = held.iter().position(|(key, _)| same(key));
            let (list, source) = match at {
                Some(at) => {
                    let (key, comment) = held.remove(at);
                    (&mut named, Source::Agent { key, comment })
                }
                None if file.has_private => (&mut files, Source::File { path: path.clone(), public: file.public }),
                None => {
                    self.has_token |= file.is_on_token;
                    let unusable = file.unusable.take().unwrap_or_else(|| Skipped {
                        what: path.display().to_string(),
                        why: "only its public key is here, and no agent has the private key".into(),
                        fix: None,
                    });
                    self.skip(unusable.what, unusable.why, unusable.fix);
                    continue;
                }
            };
            list.extend(certificates.into_iter().map(|certificate| Candidate {
                source: source.clone(),
                certificate: Some(certificate),
                agent_holds_certificate: false,
            }));
            list.push(Candidate { source, certificate: None, agent_holds_certificate: false });
        }
        if !ssh.identities_only {
            named.extend(held_certificates.into_iter().map(|(certificate, comment)| Candidate {
                source: Source::Agent { key: PublicKey::new(certificate.public_key().clone(), ""), comment },
                certificate: Some(certificate),
                agent_holds_certificate: true,
            }));
            named.extend(held.into_iter().map(|(key, comment)| Candidate {
                source: Source::Agent { key, comment },
                certificate: None,
                agent_holds_certificate: false,
            }));
        }
        named.extend(files);
        named
    }
}

/// Whether it is one of ssh's default identity files (ssh(1), `-i`). A missing default file is not reported.
fn is_ssh_default(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let kind = name.strip_prefix("id_").unwrap_or_default();
    let known = matches!(kind, "rsa" | "ecdsa" | "ecdsa_sk" | "ed25519" | "ed25519_sk" | "xmss" | "dsa");
    known && path.parent().is_some_and(|dir| dir.ends_with(".ssh"))
}
