//! What a refused client is told.

use hyper::StatusCode;

/// Why a request is refused, in a few words.
pub type Refusal = &'static str;
/// The refusal of a head of which a part only has come in time.
pub(super) const TOO_LATE: Refusal = "its head did not come within a minute";

/// Why a request is not passed on, and what that is called in HTTP.
pub(super) type Refused = (StatusCode, String);

/// The policy says no.
pub(super) fn forbidden(reason: impl Into<String>) -> Refused {
    (StatusCode::FORBIDDEN, reason.into())
}
