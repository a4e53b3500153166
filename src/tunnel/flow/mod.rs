//! One flow: bytes both ways between a client and a channel, and the buffer for a client that does not keep up.

pub(super) mod hang_up;
mod pace;
pub(super) mod relay;
mod send_buffer;
mod spill;
