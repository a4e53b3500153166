//! The settings of the user's ssh_config for a host.

mod interpret;
mod query;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod tokens;

#[cfg(fuzzing)]
pub use interpret::read_ssh_answer;
pub use interpret::ssh_hosts;
pub(super) use interpret::{query, source_of};
pub(super) use query::arguments;
pub use query::quoted_path;
pub use settings::{
    AddToAgent, AddressFamily, Algorithms, HostKeyPolicy, IdentityAgent, MissingMethod, Proxy, SshSettings,
    UpdateHostKeys,
};
pub use source::SshConfigSource;
pub(super) use tokens::Tokens;
