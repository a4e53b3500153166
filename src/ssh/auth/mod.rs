//! Login (RFC 4252, RFC 4256): keys of the agent and of files, then keyboard-interactive and password, in ssh's order;
//! several in a row if the server requires that.

mod candidates;
mod interactive;
mod password;
mod public_key;

use std::str::FromStr;

use russh::client::{AuthResult, Handle};
use russh::{MethodKind, MethodSet};
use tokio::sync::watch;

use super::carrier::may_be_left_to_ssh;
use super::context::ConnectContext;
use super::error::{Error, Skipped, Tried};
use super::handler::{Ended, SessionHandler};
use super::identity::Trust;
use super::negotiated;
use crate::config::{MissingMethod, Target};
use crate::os::user;

/// Limit of methods completed in a row without a "success" from the server.
const MAX_PARTIAL: usize = 8;

/// Logs in to the server.
///
/// # Errors
/// [`Error::Auth`], [`Error::AuthClosed`], [`Error::NeedsPerson`].
pub(super) async fn login(
    handle: &mut Handle<SessionHandler>,
    ended: &watch::Receiver<Option<Ended>>,
    target: &Target,
    trust: Option<&Trust>,
    context: &ConnectContext,
) -> Result<negotiated::Login, Error> {
    // russh completes no connection without a checked host key.
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
        context,
        tried: Tried::default(),
        needs: Vec::new(),
        has_token: false,
    };
    let offered = login.run().await?;
    let Tried { accepted, refused, .. } = login.tried;
    Ok(negotiated::Login { tried: [refused, accepted].concat(), offered: offered.iter().flat_map(names).collect() })
}

/// The methods' names in the protocol (RFC 4252), such as `publickey`.
fn names(methods: &MethodSet) -> Vec<String> {
    methods.iter().map(|method| <&str>::from(method).to_owned()).collect()
}

/// Most methods and keys that were refused before the method "none": a server counts that, too (MaxAuthTries, usually 6).
const MOST_BEFORE_NONE: usize = 4;

/// Whether a Kerberos ticket cache exists, at KRB5CCNAME or at MIT's default path.
fn has_kerberos_ticket() -> bool {
    std::env::var_os("KRB5CCNAME").is_some_and(|name| !name.is_empty()) || user::has_default_ticket_cache()
}

/// A login in progress.
struct Login<'a> {
    handle: &'a mut Handle<SessionHandler>,
    ended: &'a watch::Receiver<Option<Ended>>,
    target: &'a Target,
    trust: &'a Trust,
    context: &'a ConnectContext,
    account: String,
    /// The methods and keys tried, for messages.
    tried: Tried,
    /// The missing answers that only the user could have given.
    needs: Vec<String>,
    /// Was a key file not used because it stands for a security key that no agent has?
    has_token: bool,
}

/// How one method ended.
enum Attempt {
    Success,
    /// Accepted, but the server wants another method as well.
    Partial(MethodSet),
    /// Refused; the server would accept these methods.
    Failure(MethodSet),
    /// There was nothing to try with this method.
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
    /// Logs in. Returns the methods that the server last offered.
    async fn run(&mut self) -> Result<Option<MethodSet>, Error> {
        let methods = self.methods();
        let mut untried = methods.clone();
        let mut offered: Option<MethodSet> = None;
        let mut may_ask_for_none = true;
        let mut partial = 0;
        loop {
            let next = untried.iter().position(|method| offered.as_ref().is_none_or(|set| set.contains(method)));
            // Some servers know who comes by other means (Tailscale), some accounts have no password: before a person is
            // asked, and not before keys, which would cost each login a round trip, unless the caller wants the list of
            // methods.
            let needs_nobody = next.is_some_and(|next| untried[next] == MethodKind::PublicKey);
            let is_its_turn = self.context.looks_only || !needs_nobody;
            if is_its_turn && partial == 0 && may_ask_for_none && self.tried.refused.len() < MOST_BEFORE_NONE {
                may_ask_for_none = false;
                match self.none().await? {
                    Attempt::Success => return Ok(offered),
                    Attempt::Partial(set) | Attempt::Failure(set) => offered = Some(set),
                    Attempt::Nothing => {}
                }
                continue;
            }
            let Some(next) = next else {
                return Err(self.failure(offered.as_ref()));
            };
            // What the machine's ssh can do without asking anybody goes first.
            if untried[next] != MethodKind::PublicKey && self.may_be_left_to_ssh(offered.as_ref()) {
                return Err(self.failure(offered.as_ref()));
            }
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

    /// The method "none" (RFC 4252 section 5.2), which also tells the methods that the server takes.
    async fn none(&mut self) -> Result<Attempt, Error> {
        let result = self.handle.authenticate_none(&self.target.ssh.user).await;
        self.still_open().await?;
        Ok(result.map_or(Attempt::Nothing, Attempt::from))
    }

    /// The enabled methods in order: PreferredAuthentications, or ssh's own order. GSSAPI and
    /// host-based are not supported.
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

    /// Is there a way to log in that only the machine's ssh has, and would it be tried next?
    fn may_be_left_to_ssh(&self, offered: Option<&MethodSet>) -> bool {
        !self.context.leg.is_hop() && may_be_left_to_ssh(self.target) && !self.missing(offered).is_empty()
    }

    /// The methods set in ssh_config that dtunnel lacks and that could have worked. russh drops `gssapi-with-mic` from
    /// the server's list; without a Kerberos ticket it could not have worked.
    fn missing(&self, offered: Option<&MethodSet>) -> Vec<MissingMethod> {
        let takes = |method: &MethodKind| offered.is_none_or(|set| set.contains(method));
        let could_have_worked = |method: &MissingMethod| match method {
            MissingMethod::Gssapi => has_kerberos_ticket(),
            MissingMethod::Hostbased => takes(&MethodKind::HostBased),
            MissingMethod::Pkcs11 | MissingMethod::SecurityKey => takes(&MethodKind::PublicKey),
        };
        let token = self.has_token.then_some(MissingMethod::SecurityKey);
        self.target.ssh.missing_methods.iter().copied().chain(token).filter(could_have_worked).collect()
    }

    /// russh reports a lost connection as a failed attempt; this check distinguishes the two.
    async fn still_open(&self) -> Result<(), Error> {
        if !self.handle.is_closed() {
            return Ok(());
        }
        // The session's task is ending and reports the reason right away.
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        let is_said = ended.as_ref().is_some_and(|ended| ended.is_said);
        let message = ended.map(|ended| ended.text).unwrap_or_default();
        Err(Error::AuthClosed { host: self.target.ssh.host_name.clone(), message, is_said, tried: self.tried.clone() })
    }

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

    /// Records that the server accepted the last method tried.
    fn accepted(&mut self) {
        let last = self.tried.refused.pop();
        self.tried.accepted.extend(last);
    }

    /// Notes on skipped and refused keys, shown once before the user is asked for a password.
    fn notes(&self, told: bool) -> Vec<String> {
        if told { Vec::new() } else { self.tried.notes() }
    }
}
