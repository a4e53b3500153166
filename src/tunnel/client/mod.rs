//! Local clients: where they connect, what they send and read, and whose they are.

pub(super) mod listener;
pub(super) mod peer;
pub(super) mod stream;
