//! What can be told without servers and without root, in seconds: the rules of the house, and that what is shipped beside
//! the program is that of the program.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod architecture;
mod documented;
mod reference;
mod waits;
