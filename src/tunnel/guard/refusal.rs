//! The reasons and statuses of refusals.

use hyper::StatusCode;

/// Why a request is refused, in a few words.
pub type Refusal = &'static str;
/// The refusal of a head that arrived only in part before the time limit.
pub(super) const TOO_LATE: Refusal = "its head did not come within a minute";

/// Why a request is not passed on, with its HTTP status.
pub(super) type Refused = (StatusCode, String);

/// A refusal by the policy.
pub(super) fn forbidden(reason: impl Into<String>) -> Refused {
    (StatusCode::FORBIDDEN, reason.into())
}
