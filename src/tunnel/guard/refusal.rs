//! The reasons and statuses of refusals.

use hyper::StatusCode;

/// Why a request is refused, in a few words.
pub type Refusal = &'static str;
/// Why a request is not passed on, with its HTTP status.
pub(in crate::tunnel) type Refused = (StatusCode, String);

/// A refusal by the policy.
pub(super) fn forbidden(reason: impl Into<String>) -> Refused {
    (StatusCode::FORBIDDEN, reason.into())
}
