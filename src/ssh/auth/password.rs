//! A password (RFC 4252 section 8): the one that is kept for this host, or the one that a person types.

use std::time::Duration;

use russh::MethodKind;
use russh::client::AuthResult;

use super::{Attempt, Login};
use crate::ssh::error::Error;
use crate::ssh::host_key::known_identities;
use crate::ssh::identity::Identity;
use crate::ssh::keyring::Kept;
use crate::ssh::passwords::{Bound, Found};
use crate::ssh::prompter::Question;

/// An answer within this time belongs to the current request, not to an earlier one.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Login<'_> {
    pub(super) async fn password(&mut self) -> Result<Attempt, Error> {
        let mut last = Attempt::Nothing;
        let kept = Kept::password_for(self.target, &self.context.leg)?;
        // A password that was accepted before, or is in the keyring, goes first; neither is tried twice.
        let (mut known, mut unfit) = match self.context.credentials.passwords.find(&kept, self.trust).await {
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
                    self.context.prompter.ask(question).await.map(|password| Bound::new(password, Vec::new()))
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
                    // The user was told that this password is stored for another host and typed it anyway: it is meant
                    // for this host as well.
                    let confirmed = unfit.take().filter(|unfit| unfit.password.reveal() == bound.password.reveal());
                    let keep = !was_known && (confirmed.is_some() || self.context.credentials.remember());
                    bound.hosts.extend(confirmed.into_iter().flat_map(|unfit| unfit.hosts));
                    bound.add(self.trust.identity());
                    if keep && !self.context.looks_only {
                        self.context.credentials.passwords.keep(&kept, &bound).await;
                    }
                    self.context.credentials.passwords.put(kept, bound);
                    return Ok(accepted);
                }
                Ok(other) => return Ok(other),
                Err(_) => return Ok(last),
            }
        }
        Ok(last)
    }

    /// The server says neither yes nor no to a password, and the time is almost over. If it answers another request at
    /// once, it waits for a new password: SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252 section 8), which russh passes
    /// over. (Earlier it would not be asked: it may give up for that what it is still looking at, section 5.1.) One
    /// that is slow answers in turn: what comes later is its answer to the password, and since another is to follow,
    /// the last one here.
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

    /// Says why a stored password is not offered here, and how to allow it.
    fn skip_unfit(&mut self, kept: &Kept, hosts: &[Identity]) {
        let shown = self.trust.identity();
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let why = match hosts.as_slice() {
            [] => "it is not kept for any host key yet".into(),
            hosts => format!("it is kept for the host with the key {}, and this one has {shown}", hosts.join(" or ")),
        };
        let typed = self.target.typed();
        // A stored password belongs to known host keys; a hop's is stored under another name.
        let line = if !self.context.leg.is_hop() && known_identities(self.target).contains(shown) {
            format!("dtunnel secret set {typed} --password")
        } else {
            format!("dtunnel up {typed} --remember")
        };
        let fix = format!("if this is the right host, keep it for this key as well: {line}");
        self.skip(format!("the kept {kept}"), why, Some(fix));
    }
}
