//! Logging in (RFC 4252, RFC 4256): keys of the agent and of files, then keyboard-interactive and
//! password, in ssh's order, several in a row where the server wants that.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, Constraint};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::agent_signer::{AgentSigner, Refusal};
use super::algorithms::{pubkey_accepted, rsa_hash};
use super::error::{Error, Skipped, Tried};
use super::handler::{Client, Ended};
use super::host_key::{known_identities, rsa_bits};
use super::identity::{Identity, Trust};
use super::keys::{Credentials, FileSigner, KeyFile, LoadError, load_key, read_certificate};
use super::negotiated;
use super::passwords::{Bound, Found};
use super::prompter::{Prompter, Question};
use super::step::OnStep;
use super::vault::Kept;
use crate::config::{IdentityAgent, MissingMethod, Proxy, Target};
use crate::shell_word::shell_word;
use crate::text::shown as printable;

/// Longest wait for an ssh-agent's list of keys.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer within this time is no late one to something else.
const AT_ONCE: Duration = Duration::from_secs(1);
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
    ended: &watch::Receiver<Option<Ended>>,
    target: &Target,
    trust: Option<&Trust>,
    prompter: &Prompter,
    credentials: &Credentials,
    on_step: &OnStep,
) -> Result<negotiated::Login, Error> {
    // russh connects nowhere before the host's key was checked.
    let Some(trust) = trust else {
        let reason = "it showed none".into();
        return Err(Error::HostKeyUncheckable { host: target.ssh.host_name.clone(), reason });
    };
    let mut login = Login {
        account: target.account(),
        handle,
        ended,
        target,
        trust,
        prompter,
        credentials,
        on_step,
        tried: Tried::default(),
        needs: Vec::new(),
    };
    let offered = login.run().await?;
    let Tried { accepted, refused, .. } = login.tried;
    Ok(negotiated::Login { tried: [refused, accepted].concat(), offered: offered.iter().flat_map(names).collect() })
}

/// The names of methods.
fn names(methods: &MethodSet) -> Vec<String> {
    methods.iter().map(|method| <&str>::from(method).to_owned()).collect()
}

/// Is there a cache of Kerberos tickets, where the variable or MIT's default says?
fn has_kerberos_ticket() -> bool {
    let uid = rustix::process::getuid().as_raw();
    std::env::var_os("KRB5CCNAME").is_some_and(|name| !name.is_empty())
        || std::path::Path::new(&format!("/tmp/krb5cc_{uid}")).exists()
}

/// One login under way.
struct Login<'a> {
    handle: &'a mut Handle<Client>,
    ended: &'a watch::Receiver<Option<Ended>>,
    target: &'a Target,
    trust: &'a Trust,
    prompter: &'a Prompter,
    credentials: &'a Credentials,
    on_step: &'a OnStep,
    account: String,
    /// What was tried, for people.
    tried: Tried,
    /// What only a person could have given.
    needs: Vec<String>,
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
    /// Logs in; what the server said last that it would accept.
    async fn run(&mut self) -> Result<Option<MethodSet>, Error> {
        let methods = self.methods();
        let mut untried = methods.clone();
        let mut offered: Option<MethodSet> = None;
        if self.target.looks_only {
            // Somebody wants to know: a question that costs a round trip (RFC 4252 section 5.2).
            let result = self.handle.authenticate_none(&self.target.ssh.user).await;
            self.still_open().await?;
            match result.map(Attempt::from) {
                Ok(Attempt::Success) => return Ok(None),
                Ok(Attempt::Partial(set) | Attempt::Failure(set)) => offered = Some(set),
                Ok(Attempt::Nothing) | Err(_) => {}
            }
        }
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
                Attempt::Success => return Ok(offered),
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

    /// The methods that are enabled, in order: ssh's own, without what we do not speak (GSSAPI,
    /// host-based), or PreferredAuthentications.
    fn methods(&self) -> Vec<MethodKind> {
        let ssh = &self.target.ssh;
        let mut methods = vec![MethodKind::PublicKey, MethodKind::KeyboardInteractive, MethodKind::Password];
        methods.retain(|method| match method {
            MethodKind::PublicKey => ssh.pubkey_authentication,
            MethodKind::KeyboardInteractive => ssh.keyboard_interactive_authentication,
            _ => ssh.password_authentication,
        });
        match &ssh.preferred_authentications {
            None => methods,
            Some(names) => {
                let named = names.iter().filter_map(|name| MethodKind::from_str(name).ok());
                named.filter(|method| methods.contains(method)).collect()
            }
        }
    }

    fn failure(&self, offered: Option<&MethodSet>) -> Error {
        let missing = self.missing(offered);
        if !self.needs.is_empty() {
            let what = self.needs.join(", or ");
            let (account, tried) = (self.account.clone(), self.tried.clone());
            return Error::NeedsPerson { account, tried, what, missing };
        }
        Error::Auth {
            account: self.account.clone(),
            tried: self.tried.clone(),
            offered: offered.map(names).unwrap_or_default(),
            missing,
        }
    }

    /// Which ways that ssh_config chooses and that are not here could have led in. russh leaves `gssapi-with-mic` out
    /// of what a server offers; without a Kerberos ticket it would have been of no use in any case.
    fn missing(&self, offered: Option<&MethodSet>) -> Vec<MissingMethod> {
        let takes = |method: &MethodKind| offered.is_none_or(|set| set.contains(method));
        let could_have_worked = |method: &MissingMethod| match method {
            MissingMethod::Gssapi => has_kerberos_ticket(),
            MissingMethod::Hostbased => takes(&MethodKind::HostBased),
            MissingMethod::Pkcs11 => takes(&MethodKind::PublicKey),
        };
        self.target.ssh.missing_methods.iter().copied().filter(could_have_worked).collect()
    }

    /// russh reports a lost connection as a failed attempt; this tells them apart.
    async fn still_open(&self) -> Result<(), Error> {
        if !self.handle.is_closed() {
            return Ok(());
        }
        // The reason follows at once: the session's task is ending.
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        let is_said = ended.as_ref().is_some_and(|ended| ended.is_said);
        let message = ended.map(|ended| ended.text).unwrap_or_default();
        Err(Error::AuthClosed { host: self.target.ssh.host_name.clone(), message, is_said, tried: self.tried.clone() })
    }

    // ---- what people are told

    fn need(&mut self, what: String) {
        if !self.needs.contains(&what) {
            self.needs.push(what);
        }
    }

    fn skip(&mut self, what: String, why: String, fix: Option<String>) {
        let skipped = Skipped { what, why, fix };
        if !self.tried.skipped.contains(&skipped) {
            self.tried.skipped.push(skipped);
        }
    }

    /// The last one that was tried was accepted after all.
    fn accepted(&mut self) {
        let last = self.tried.refused.pop();
        self.tried.accepted.extend(last);
    }

    /// A key was refused: how it would be accepted the next time.
    fn note_refused(&mut self, candidate: &Candidate) {
        let ssh = &self.target.ssh;
        let port = if ssh.port == 22 { String::new() } else { format!(" -p {}", ssh.port) };
        // Over a jump or a command the alias is the way.
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
        let fix = format!("to have it accepted, if you can log in there otherwise: {copy}");
        self.tried.copy_id.get_or_insert(fix);
    }

    /// What a person should know before answering for want of a key; once is enough.
    fn notes(&self, told: bool) -> Vec<String> {
        if told { Vec::new() } else { self.tried.notes() }
    }

    // ---- public keys (RFC 4252 section 7)

    async fn public_keys(&mut self) -> Result<Attempt, Error> {
        let mut agent = self.agent().await;
        let mut last = Attempt::Nothing;
        let mut server_rsa = None;
        for candidate in self.candidates(agent.as_mut()).await {
            let public = match &candidate.source {
                Source::Agent { key, .. } => key.clone(),
                Source::File { public: Some(key), .. } => key.clone(),
                // Even the public half is behind the passphrase (an old PEM file without .pub).
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
            // Until the server has said otherwise.
            self.tried.refused.push(candidate.label());
            let user = self.target.ssh.user.clone();
            let handle = &mut *self.handle;
            let mut refusal = None;
            let result = match (&candidate.source, agent.as_mut()) {
                (Source::Agent { .. }, Some(agent)) => {
                    let mut signer = AgentSigner {
                        agent,
                        holds_certificate: candidate.agent_holds_certificate,
                        prompter: self.prompter,
                        credentials: self.credentials,
                        on_step: self.on_step,
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
                    let mut signer = FileSigner::new(path, self.prompter, self.credentials);
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
                // It was not refused: no signature could be made with it.
                Err(message) => {
                    self.still_open().await?;
                    tracing::warn!("{}: {message}", candidate.label());
                    self.tried.refused.pop();
                    let fix = refusal.map(|refusal| refusal.fix().to_owned());
                    self.skip(candidate.label(), printable(&message), fix);
                    if matches!(refusal, Some(Refusal::Silent)) {
                        // Its late answer would be taken for that to another question.
                        agent = None;
                    }
                }
            }
        }
        Ok(last)
    }

    /// AddKeysToAgent: a key that was of use is given to the agent. That it could not be is only
    /// logged.
    async fn add_to_agent(&self, path: &Path, agent: &mut AgentClient<UnixStream>) {
        let Some(how) = self.target.ssh.add_keys_to_agent else { return };
        let Ok(key) = load_key(path, self.prompter, self.credentials).await else { return };
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

    async fn agent(&mut self) -> Option<AgentClient<UnixStream>> {
        let path = match &self.target.ssh.identity_agent {
            IdentityAgent::None => return None,
            IdentityAgent::Path(path) => path.clone(),
            IdentityAgent::Environment => PathBuf::from(std::env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty())?),
        };
        if self.credentials.agent_asks() && !self.prompter.disturbs() {
            let why = "it asks its owner, who is not asked for a further connection".into();
            self.skip(format!("the ssh-agent at {}", path.display()), why, None);
            return None;
        }
        match tokio::time::timeout(AGENT_TIMEOUT, AgentClient::connect_uds(&path)).await {
            Ok(Ok(mut agent)) => {
                // Lets keys that are restricted to certain hosts be used (ssh-add -h). Agents other
                // than OpenSSH's do not know it, and need not.
                if let Some(binding) = self.handle.agent_session_binding()
                    && tokio::time::timeout(AGENT_TIMEOUT, agent.bind_session(binding, false)).await.is_err()
                {
                    tracing::warn!("the ssh-agent at {} does not answer", path.display());
                    self.skip(format!("the ssh-agent at {}", path.display()), "it does not answer".into(), None);
                    return None;
                }
                Some(agent)
            }
            Ok(Err(e)) => {
                tracing::warn!("no ssh-agent at {}: {e}", path.display());
                self.skip(format!("the ssh-agent at {}", path.display()), e.to_string(), None);
                None
            }
            Err(_) => {
                tracing::warn!("the ssh-agent at {} does not answer", path.display());
                self.skip(format!("the ssh-agent at {}", path.display()), "it does not answer".into(), None);
                None
            }
        }
    }

    /// The keys to offer, in ssh's order: those of the agent that ssh_config names, the agent's
    /// others unless IdentitiesOnly, then the files that the agent does not hold. A certificate
    /// goes before the key it is about.
    async fn candidates(&mut self, agent: Option<&mut AgentClient<UnixStream>>) -> Vec<Candidate> {
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
                    let unusable = file.unusable.take().unwrap_or_else(|| Skipped {
                        what: path.display().to_string(),
                        why: "only its public half is here, and no agent holds the other".into(),
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

    async fn unlock(&mut self, path: &Path) -> Option<Arc<PrivateKey>> {
        match load_key(path, self.prompter, self.credentials).await {
            Ok(key) => Some(key),
            Err(LoadError::Nobody) => {
                self.need(format!("the passphrase of {}", path.display()));
                None
            }
            Err(LoadError::Other(message)) => {
                tracing::warn!("{message}");
                // An agent may be able to read it, and else says why not in words of its own.
                let fix = format!("ssh-add {}", shell_word(&path.to_string_lossy()));
                self.skip(path.display().to_string(), printable(&message), Some(fix));
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
                    Ok(KeyboardInteractiveAuthResponse::Success) => {
                        self.tried.accepted.push("keyboard-interactive".into());
                        return Ok(Attempt::Success);
                    }
                    Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                        self.still_open().await?;
                        if partial_success {
                            self.tried.accepted.push("keyboard-interactive".into());
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
                                notes: self.notes(round > 0 || !answers.is_empty()),
                            };
                            let Some(answer) = self.prompter.ask(question).await else {
                                self.need("answers to the server's questions".into());
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
            self.tried.refused.push("keyboard-interactive".into());
        }
        Ok(last)
    }

    // ---- password (RFC 4252 section 8)

    async fn password(&mut self) -> Result<Attempt, Error> {
        let mut last = Attempt::Nothing;
        let kept = Kept::password_for(self.target)?;
        // One that was accepted before, or is in the keyring, goes first; neither is tried twice.
        let (mut known, mut unfit) = match self.credentials.passwords.find(&kept, self.trust).await {
            Found::Fits(bound) => (Some(bound), None),
            Found::Unfit { hosts, kept: password } => {
                self.skip_unfit(&kept, &hosts);
                (None, password.map(|password| Bound::new(password, hosts)))
            }
            Found::Nothing => (None, None),
        };
        let mut asked = 0;
        while asked < self.target.ssh.password_prompts {
            let was_known = known.is_some();
            let answer = match known.take() {
                Some(known) => Some(known),
                None => {
                    asked += 1;
                    let question = Question::Password {
                        account: self.account.clone(),
                        again: asked > 1,
                        notes: self.notes(asked > 1),
                    };
                    self.prompter.ask(question).await.map(|password| Bound::new(password, Vec::new()))
                }
            };
            let Some(mut bound) = answer else {
                self.need("a password".into());
                return Ok(last);
            };
            self.tried.refused.push("password".into());
            let user = self.target.ssh.user.clone();
            let answering = self.handle.authenticate_password(user, bound.password.reveal());
            let result = match tokio::time::timeout(self.target.connect_timeout * 4 / 5, answering).await {
                Ok(result) => result,
                Err(_) => self.ask_after_silence().await?,
            };
            self.still_open().await?;
            match result.map(Attempt::from) {
                Ok(Attempt::Failure(set)) if set.contains(&MethodKind::Password) => last = Attempt::Failure(set),
                Ok(accepted @ (Attempt::Success | Attempt::Partial(_))) => {
                    self.accepted();
                    // Who has typed what is kept for another host, and read that it is, means this one as well.
                    let confirmed = unfit.take().filter(|unfit| unfit.password.reveal() == bound.password.reveal());
                    let keep = !was_known && (confirmed.is_some() || self.credentials.remember());
                    bound.hosts.extend(confirmed.into_iter().flat_map(|unfit| unfit.hosts));
                    bound.add(self.trust.identity());
                    if keep && !self.target.looks_only {
                        self.credentials.passwords.keep(&kept, &bound).await;
                    }
                    self.credentials.passwords.put(kept, bound);
                    return Ok(accepted);
                }
                Ok(other) => return Ok(other),
                Err(_) => return Ok(last),
            }
        }
        Ok(last)
    }

    /// The server says neither yes nor no to a password, and the time is almost over. If it answers another request at
    /// once, it waits for a new password: SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252 section 8), which russh passes over.
    /// (Earlier it would not be asked: it may give up for that what it is still looking at, section 5.1.) One that is
    /// slow answers in turn: what comes later is its answer to the password, and since another is to follow, the last one here.
    async fn ask_after_silence(&mut self) -> Result<Result<AuthResult, russh::Error>, Error> {
        let asked = tokio::time::Instant::now();
        let answered = self.handle.authenticate_none(&self.target.ssh.user).await;
        self.still_open().await?;
        match answered {
            Ok(AuthResult::Failure { .. }) if asked.elapsed() < AT_ONCE => {
                let (account, port) = (self.account.clone(), self.target.ssh.port);
                Err(Error::PasswordExpired { account, port })
            }
            Ok(AuthResult::Failure { remaining_methods, partial_success: false }) => {
                Err(self.failure(Some(&remaining_methods)))
            }
            answered => Ok(answered),
        }
    }

    /// Says why a password that is kept is not offered here, and what to do if it should be.
    fn skip_unfit(&mut self, kept: &Kept, hosts: &[Identity]) {
        let shown = self.trust.identity();
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let why = match hosts.as_slice() {
            [] => "it is kept for no host key yet".into(),
            hosts => format!("it is kept for the host with the key {}, and this one has {shown}", hosts.join(" or ")),
        };
        let typed = self.target.typed();
        // What is stored is for the keys that are known; for a hop it is stored by another name.
        let line = if !self.target.is_hop() && known_identities(self.target).contains(shown) {
            format!("dtunnel secret set {typed} --password")
        } else {
            format!("dtunnel up {typed} --remember")
        };
        let fix = format!("if this is the right host, keep it for this key as well: {line}");
        self.skip(format!("the kept {kept}"), why, Some(fix));
    }
}

/// Is it one of the files that ssh looks for where nobody names any (ssh(1), `-i`)? That it is not there says
/// nothing.
fn is_ssh_default(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let kind = name.strip_prefix("id_").unwrap_or_default();
    let known = matches!(kind, "rsa" | "ecdsa" | "ecdsa_sk" | "ed25519" | "ed25519_sk" | "xmss" | "dsa");
    known && path.parent().is_some_and(|dir| dir.ends_with(".ssh"))
}

/// A key to offer, by itself or with a certificate.
struct Candidate {
    source: Source,
    certificate: Option<Certificate>,
    /// Is it the agent's own certificate, rather than a file's?
    agent_holds_certificate: bool,
}

/// Where the private half is.
#[derive(Clone)]
enum Source {
    Agent { key: PublicKey, comment: String },
    File { path: PathBuf, public: Option<PublicKey> },
}

impl Candidate {
    fn label(&self) -> String {
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
