//! Logging in (RFC 4252, RFC 4256): keys of the agent and of files, then keyboard-interactive and
//! password, in ssh's order, several in a row where the server wants that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::algorithms::rsa_hash;
use super::connection::{Client, printable};
use super::error::Error;
use super::keys::{Credentials, FileSigner, KeyFile, LoadError, load_key};
use super::prompter::{Prompter, Question};
use crate::config::{IdentityAgent, Target};

/// Longest wait for an ssh-agent's list of keys. (Signing may need a touch or a PIN and has the
/// time of the whole login.)
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Rounds of keyboard-interactive a server may ask for in one attempt. RFC 4256 sets no end.
const MAX_ROUNDS: usize = 16;
/// Methods completed in a row before a server that never says "success" is given up.
const MAX_PARTIAL: usize = 8;

/// Logs in.
///
/// # Errors
/// [`Error::Auth`], [`Error::AuthClosed`], [`Error::NeedsPerson`].
pub(super) async fn login(
    handle: &mut Handle<Client>,
    ended: &watch::Receiver<Option<String>>,
    target: &Target,
    prompter: &Prompter,
    credentials: &Credentials,
) -> Result<(), Error> {
    let mut login = Login {
        account: format!("{}@{}", target.ssh.user, target.ssh.host_name),
        handle,
        ended,
        target,
        prompter,
        credentials,
        tried: Vec::new(),
        needs: None,
    };
    login.run().await
}

/// One login under way.
struct Login<'a> {
    handle: &'a mut Handle<Client>,
    ended: &'a watch::Receiver<Option<String>>,
    target: &'a Target,
    prompter: &'a Prompter,
    credentials: &'a Credentials,
    account: String,
    /// What was tried, for people.
    tried: Vec<String>,
    /// What only a person could have given.
    needs: Option<String>,
}

/// How one method ended.
enum Attempt {
    Success,
    /// Accepted, but the server wants another method as well.
    Partial(MethodSet),
    /// Not accepted; the server would take these.
    Failure(MethodSet),
    /// There was nothing to try.
    Nothing,
}

impl From<AuthResult> for Attempt {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::Success,
            AuthResult::Failure { remaining_methods, partial_success: true } => Self::Partial(remaining_methods),
            AuthResult::Failure { remaining_methods, .. } => Self::Failure(remaining_methods),
        }
    }
}

impl Login<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let ssh = &self.target.ssh;
        // ssh's order of preference, without what we do not speak (GSSAPI, host-based).
        let mut methods = Vec::new();
        methods.extend(ssh.pubkey_authentication.then_some(MethodKind::PublicKey));
        methods.extend(ssh.keyboard_interactive_authentication.then_some(MethodKind::KeyboardInteractive));
        methods.extend(ssh.password_authentication.then_some(MethodKind::Password));
        let mut untried = methods.clone();
        let mut offered: Option<MethodSet> = None;
        let mut partial = 0;
        loop {
            let next = untried.iter().position(|method| offered.as_ref().is_none_or(|set| set.contains(method)));
            let Some(next) = next else {
                return Err(self.failure(offered.as_ref()));
            };
            let attempt = match untried.remove(next) {
                MethodKind::PublicKey => self.public_keys().await?,
                MethodKind::KeyboardInteractive => self.keyboard_interactive().await?,
                _ => self.password().await?,
            };
            match attempt {
                Attempt::Success => return Ok(()),
                Attempt::Partial(set) => {
                    partial += 1;
                    if partial > MAX_PARTIAL {
                        return Err(self.failure(Some(&set)));
                    }
                    untried = methods.clone();
                    offered = Some(set);
                }
                Attempt::Failure(set) => offered = Some(set),
                Attempt::Nothing => {}
            }
        }
    }

    fn failure(&self, offered: Option<&MethodSet>) -> Error {
        if let Some(what) = &self.needs {
            return Error::NeedsPerson { account: self.account.clone(), tried: self.tried.clone(), what: what.clone() };
        }
        let name = |method: &MethodKind| <&str>::from(method).to_owned();
        Error::Auth {
            account: self.account.clone(),
            tried: self.tried.clone(),
            offered: offered.map(|set| set.iter().map(name).collect()).unwrap_or_default(),
        }
    }

    /// russh reports a lost connection as a failed attempt; this tells them apart.
    async fn still_open(&self) -> Result<(), Error> {
        if !self.handle.is_closed() {
            return Ok(());
        }
        // The reason follows at once: the session's task is ending.
        let mut ended = self.ended.clone();
        let message = match ended.wait_for(Option::is_some).await {
            Ok(message) => message.clone().unwrap_or_default(),
            Err(_) => String::new(),
        };
        Err(Error::AuthClosed { host: self.target.ssh.host_name.clone(), message, tried: self.tried.clone() })
    }

    // ---- public keys (RFC 4252 section 7)

    async fn public_keys(&mut self) -> Result<Attempt, Error> {
        let mut agent = self.agent().await;
        let mut last = Attempt::Nothing;
        let mut server_rsa = None;
        for candidate in self.candidates(agent.as_mut()).await {
            self.tried.push(candidate.label());
            let public = match &candidate {
                Candidate::Agent { key, .. } => key.clone(),
                Candidate::File { public: Some(key), .. } => key.clone(),
                // Even the public half is behind the passphrase (an old PEM file without .pub).
                Candidate::File { path, public: None } => match self.unlock(path).await {
                    Some(key) => key.public_key().clone(),
                    None => continue,
                },
            };
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
            let user = self.target.ssh.user.clone();
            let result = match (&candidate, agent.as_mut()) {
                (Candidate::Agent { .. }, Some(agent)) => self
                    .handle
                    .authenticate_publickey_with(user, public, hash, agent)
                    .await
                    .map_err(|error| error.to_string()),
                (Candidate::File { path, .. }, _) => {
                    let mut signer = FileSigner::new(path, self.prompter, self.credentials);
                    let result = self.handle.authenticate_publickey_with(user, public, hash, &mut signer).await;
                    if signer.nobody {
                        self.needs = Some(format!("the passphrase of {}", path.display()));
                    }
                    result.map_err(|error| error.0)
                }
                (Candidate::Agent { .. }, None) => continue,
            };
            match result {
                Ok(result) => {
                    self.still_open().await?;
                    match Attempt::from(result) {
                        Attempt::Failure(set) if set.contains(&MethodKind::PublicKey) => last = Attempt::Failure(set),
                        done => return Ok(done),
                    }
                }
                Err(message) => {
                    self.still_open().await?;
                    tracing::warn!("{}: {message}", candidate.label());
                }
            }
        }
        Ok(last)
    }

    async fn agent(&self) -> Option<AgentClient<UnixStream>> {
        let path = match &self.target.ssh.identity_agent {
            IdentityAgent::None => return None,
            IdentityAgent::Path(path) => path.clone(),
            IdentityAgent::Environment => PathBuf::from(std::env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty())?),
        };
        match tokio::time::timeout(AGENT_TIMEOUT, AgentClient::connect_uds(&path)).await {
            Ok(Ok(mut agent)) => {
                // Lets keys that are restricted to certain hosts be used (ssh-add -h). Agents other
                // than OpenSSH's do not know it, and need not.
                if let Some(binding) = self.handle.agent_session_binding() {
                    let _ = tokio::time::timeout(AGENT_TIMEOUT, agent.bind_session(binding, false)).await;
                }
                Some(agent)
            }
            Ok(Err(e)) => {
                tracing::warn!("no ssh-agent at {}: {e}", path.display());
                None
            }
            Err(_) => {
                tracing::warn!("the ssh-agent at {} does not answer", path.display());
                None
            }
        }
    }

    /// The keys to offer, in ssh's order: those of the agent that ssh_config names, the agent's
    /// others unless IdentitiesOnly, then the files that the agent does not hold.
    async fn candidates(&self, agent: Option<&mut AgentClient<UnixStream>>) -> Vec<Candidate> {
        let mut held: Vec<(PublicKey, String)> = Vec::new();
        if let Some(agent) = agent {
            match tokio::time::timeout(AGENT_TIMEOUT, agent.request_identities()).await {
                Ok(Ok(identities)) => held.extend(identities.into_iter().filter_map(|identity| match identity {
                    AgentIdentity::PublicKey { key, comment } => Some((key, comment)),
                    AgentIdentity::Certificate { .. } => None,
                })),
                Ok(Err(e)) => tracing::warn!("the ssh-agent did not list its keys: {e}"),
                Err(_) => tracing::warn!("the ssh-agent did not list its keys in time"),
            }
        }
        let mut named = Vec::new();
        let mut files = Vec::new();
        for path in &self.target.ssh.identity_files {
            let Some(file) = KeyFile::find(path) else { continue };
            let at = file
                .public
                .as_ref()
                .and_then(|public| held.iter().position(|(key, _)| key.key_data() == public.key_data()));
            match at {
                Some(at) => {
                    let (key, comment) = held.remove(at);
                    named.push(Candidate::Agent { key, comment });
                }
                None if file.has_private => files.push(Candidate::File { path: path.clone(), public: file.public }),
                None => {}
            }
        }
        if !self.target.ssh.identities_only {
            named.extend(held.into_iter().map(|(key, comment)| Candidate::Agent { key, comment }));
        }
        named.extend(files);
        named
    }

    async fn unlock(&mut self, path: &Path) -> Option<Arc<PrivateKey>> {
        match load_key(path, self.prompter, self.credentials).await {
            Ok(key) => Some(key),
            Err(LoadError::Nobody) => {
                self.needs = Some(format!("the passphrase of {}", path.display()));
                None
            }
            Err(LoadError::Other(message)) => {
                tracing::warn!("{message}");
                None
            }
        }
    }

    // ---- keyboard-interactive (RFC 4256)

    async fn keyboard_interactive(&mut self) -> Result<Attempt, Error> {
        let mut last = Attempt::Nothing;
        for _ in 0..self.target.ssh.password_prompts {
            let user = self.target.ssh.user.clone();
            let mut response = self.handle.authenticate_keyboard_interactive_start(user, None).await;
            let mut asked = false;
            for round in 0.. {
                match response {
                    Ok(KeyboardInteractiveAuthResponse::Success) => return Ok(Attempt::Success),
                    Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                        self.still_open().await?;
                        if partial_success {
                            return Ok(Attempt::Partial(remaining_methods));
                        }
                        last = Attempt::Failure(remaining_methods);
                        break;
                    }
                    Ok(KeyboardInteractiveAuthResponse::InfoRequest { instructions, prompts, .. }) => {
                        if round >= MAX_ROUNDS {
                            return Ok(last);
                        }
                        let mut answers = Vec::with_capacity(prompts.len());
                        for prompt in prompts {
                            asked = true;
                            let question = Question::Server {
                                account: self.account.clone(),
                                instruction: printable(&instructions),
                                prompt: printable(&prompt.prompt),
                                echo: prompt.echo,
                            };
                            let Some(answer) = self.prompter.ask(question).await else {
                                self.needs = Some("answers to the server's questions".into());
                                return Ok(last);
                            };
                            answers.push(answer.reveal().to_owned());
                        }
                        response = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                    }
                    Err(_) => {
                        self.still_open().await?;
                        return Ok(last);
                    }
                }
            }
            if !asked {
                break;
            }
            self.tried.push("keyboard-interactive".into());
        }
        Ok(last)
    }

    // ---- password (RFC 4252 section 8)

    async fn password(&mut self) -> Result<Attempt, Error> {
        let mut last = Attempt::Nothing;
        for again in 0..self.target.ssh.password_prompts {
            // One that was accepted before is not asked for again, and not tried twice.
            let kept = self.credentials.with(|unlocked| unlocked.passwords.remove(&self.account));
            let answer = match kept {
                Some(kept) => Some(kept),
                None => self.prompter.ask(Question::Password { account: self.account.clone(), again: again > 0 }).await,
            };
            let Some(password) = answer else {
                self.needs = Some("a password".into());
                return Ok(last);
            };
            self.tried.push("password".into());
            let user = self.target.ssh.user.clone();
            let result = self.handle.authenticate_password(user, password.reveal()).await;
            self.still_open().await?;
            match result.map(Attempt::from) {
                Ok(Attempt::Failure(set)) if set.contains(&MethodKind::Password) => last = Attempt::Failure(set),
                Ok(accepted @ (Attempt::Success | Attempt::Partial(_))) => {
                    self.credentials.with(|unlocked| unlocked.passwords.insert(self.account.clone(), password));
                    return Ok(accepted);
                }
                Ok(other) => return Ok(other),
                Err(_) => return Ok(last),
            }
        }
        Ok(last)
    }
}

/// A key to offer.
enum Candidate {
    Agent { key: PublicKey, comment: String },
    File { path: PathBuf, public: Option<PublicKey> },
}

impl Candidate {
    fn label(&self) -> String {
        match self {
            Self::Agent { comment, .. } => format!("key `{}` of the ssh-agent", printable(comment)),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}
