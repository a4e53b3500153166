//! A check's result, and its evidence.

use std::fmt;

use serde::Serialize;

use crate::text;

/// The reason of an unknown result if the Engine did not answer.
pub(super) const UNTOLD: &str = "the Engine does not say";

/// A check's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "detail", rename_all = "lowercase")]
pub enum Finding {
    Passed,
    /// A finding, with its evidence.
    Found(Vec<Evidence>),
    /// Found, but the configuration says to pass it over (`audit.ignore`).
    Ignored {
        /// Why, in the user's words.
        reason: Option<String>,
        evidence: Vec<Evidence>,
    },
    /// Unknown, with the reason.
    Unknown(String),
}

impl Finding {
    pub(super) fn found(evidence: impl IntoIterator<Item = String>) -> Self {
        Self::Found(evidence.into_iter().map(|line| Evidence { container: None, text: text::shown(&line) }).collect())
    }

    pub(super) fn unknown(why: &str) -> Self {
        Self::Unknown(text::shown(why))
    }
}

/// Evidence, made fit for a terminal: it contains names, paths and options from the Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The container that it is about.
    pub container: Option<String>,
    /// The fault; empty if the check's name says it all.
    pub text: String,
}

impl Evidence {
    pub(super) fn of(container: &str, details: &str) -> Self {
        Self { container: Some(text::shown(container)), text: text::shown(details) }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.container {
            Some(container) if self.text.is_empty() => f.write_str(container),
            Some(container) => write!(f, "{container}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Serialize for Evidence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
