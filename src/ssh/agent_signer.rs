//! Signatures by an ssh-agent, which may first ask its owner or wait for a touch.

use std::time::Duration;

use russh::Signer;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PublicKey};

use super::keys::{Credentials, SignError};
use super::prompter::Prompter;
use super::step::{News, OnStep, Step};
use crate::os::agent;

/// Longest wait for a signature, which may take a touch, a PIN or its owner's consent. Time
/// limits are suspended meanwhile.
const SIGNING: Duration = Duration::from_secs(120);
/// An agent that has not signed after this time is assumed to be asking its owner.
const SIGNED_BY_ITSELF: Duration = Duration::from_millis(500);

/// Why an agent did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The agent refused to sign.
    Refused,
    /// The agent did not answer in time.
    Silent,
}

impl Refusal {
    /// The line to type, or the action to take.
    pub(super) fn fix(self) -> &'static str {
        match self {
            Self::Refused => {
                "confirm when the agent asks, or unlock it (`ssh-add -X`); `ssh-add -T KEY.pub` tries a key"
            }
            Self::Silent => "answer the agent, or touch the key, within 2 minutes",
        }
    }
}

/// Signs with a key of the agent. For a certificate from a file, the agent holds only the plain key.
pub(super) struct AgentSigner<'a> {
    pub(super) agent: &'a mut AgentClient<agent::Stream>,
    /// Whether the agent, rather than a file, holds the certificate.
    pub(super) holds_certificate: bool,
    pub(super) prompter: &'a Prompter,
    pub(super) credentials: &'a Credentials,
    pub(super) on_step: &'a OnStep,
    /// Why the agent did not sign.
    pub(super) refusal: Option<Refusal>,
}

impl Signer for AgentSigner<'_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let plain;
        let identity = match identity {
            AgentIdentity::Certificate { certificate, .. } if !self.holds_certificate => {
                plain = AgentIdentity::from(PublicKey::new(certificate.public_key().clone(), ""));
                &plain
            }
            identity => identity,
        };
        let _hold = self.prompter.hold(SIGNING);
        let signing = tokio::time::timeout(SIGNING, self.agent.sign_request(identity, hash, to_sign));
        tokio::pin!(signing);
        let signed = match tokio::time::timeout(SIGNED_BY_ITSELF, &mut signing).await {
            Ok(signed) => signed,
            Err(_) => {
                self.credentials.note_that_agent_asks();
                (self.on_step)(News::Step(Step::Confirming));
                let signed = signing.await;
                (self.on_step)(News::Step(Step::Authenticating));
                signed
            }
        };
        let (refusal, why) = match signed {
            Ok(Ok(signed)) => return Ok(signed),
            Ok(Err(russh::keys::Error::AgentFailure)) => (Refusal::Refused, "the agent refused to sign with it".into()),
            Ok(Err(error)) => return Err(SignError(format!("the agent did not sign with it: {error}"))),
            Err(_) => {
                (Refusal::Silent, format!("the agent did not sign within {}", humantime::format_duration(SIGNING)))
            }
        };
        self.refusal = Some(refusal);
        Err(SignError(why))
    }
}
