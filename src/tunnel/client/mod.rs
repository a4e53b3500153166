//! Local clients: the listener, their streams and their owners.

pub(super) mod error_answer;
pub(super) mod linger;
pub(super) mod listener;
pub(super) mod peer;
pub(super) mod turned_away;
