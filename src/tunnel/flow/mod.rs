//! A flow: copies data both ways between a client and a channel, with a buffer for a slow client.

pub(super) mod carriage;
pub(super) mod hang_up;
mod inwards;
mod outwards;
mod pace;
pub(super) mod relay;
mod send_buffer;
mod spill;
