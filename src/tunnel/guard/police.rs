//! How a client's connection has its requests decided on, and what it tells in return.

use std::fmt;

use bytes::Bytes;

use super::head::Head;
use super::operation::Makes;
use super::policy::Pass;
use super::refusal::Refused;

/// Decides on requests.
pub(in crate::tunnel) trait Police: fmt::Debug + Send + Sync {
    /// Decides on a request by its head.
    ///
    /// # Errors
    /// Why it may not pass.
    fn decide(&self, head: &Head) -> Result<ByHead, Refused>;

    /// The Engine has answered with this head.
    fn answered(&self, head: &[u8]);

    /// The Engine has created an object, and says so in this body.
    fn made(&self, made: Makes, answer: &[u8]);
}

/// How a request passes, by its head.
#[derive(Debug)]
pub(in crate::tunnel) enum ByHead {
    /// With this target.
    Send(String),
    /// It is to be judged, with its body where that is not larger than this number of bytes.
    Judge(Pass, Option<usize>),
}

/// How a request that was judged passes.
#[derive(Debug)]
pub(in crate::tunnel) struct Passed {
    pub(in crate::tunnel) target: String,
    /// The body to send, where it was looked at; None drops it.
    pub(in crate::tunnel) body: Option<Bytes>,
    /// What its success creates.
    pub(in crate::tunnel) makes: Option<Makes>,
}
