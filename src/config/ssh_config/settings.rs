//! The supported settings of ssh_config for a host.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Destination;
use crate::text;

/// Where to look for an ssh-agent (IdentityAgent in ssh_config(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityAgent {
    /// The socket in `$SSH_AUTH_SOCK`, if set.
    Environment,
    /// No agent.
    None,
    /// This socket.
    Path(PathBuf),
}

/// What to do with a host key that is not known (StrictHostKeyChecking in ssh_config(5)). A changed or
/// revoked key is refused under each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyPolicy {
    Strict,
    Ask,
    /// Trust and remember it.
    AcceptNew,
    /// Trust and remember it, for hosts that are thrown away.
    Off,
}

/// What to do with the keys that a host announces (UpdateHostKeys in ssh_config(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateHostKeys {
    No,
    /// A person is asked.
    Ask,
    /// known_hosts is brought up to date.
    Yes,
}

/// How the TCP connection to the server is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    None,
    /// Through these hosts, nearest first (ProxyJump).
    Jump(Vec<Destination>),
    /// Over the standard input and output of this shell command, tokens not yet replaced
    /// (ProxyCommand).
    Command(String),
}

/// A list of algorithms (Ciphers, KexAlgorithms, MACs … in ssh_config(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Algorithms {
    /// No setting: dtunnel's own list and order.
    #[default]
    Default,
    /// ssh's defaults and these (`+`): dtunnel's own, then these.
    And(Vec<String>),
    /// These, in this order.
    Exactly(Vec<String>),
}

/// Which addresses of a name are tried (AddressFamily in ssh_config(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressFamily {
    #[default]
    Any,
    Inet,
    Inet6,
}

/// How a key is added to the agent (AddKeysToAgent in ssh_config(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddToAgent {
    /// Have the agent ask before each use.
    pub confirm: bool,
    /// In seconds; None keeps it as long as the agent lives.
    pub lifetime: Option<u32>,
}

/// The supported settings of ssh_config for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSettings {
    /// HostName: the name or address to connect to.
    pub host_name: String,
    pub port: u16,
    pub user: String,
    /// IdentityFile, in order, tokens and `~` replaced.
    pub identity_files: Vec<PathBuf>,
    /// IdentitiesOnly: of the agent's keys, offer only those of `identity_files`.
    pub identities_only: bool,
    pub identity_agent: IdentityAgent,
    /// UserKnownHostsFile; new keys go to the first.
    pub user_known_hosts: Vec<PathBuf>,
    pub global_known_hosts: Vec<PathBuf>,
    /// HostKeyAlias: look the host key up under this name.
    pub host_key_alias: Option<String>,
    pub host_key_policy: HostKeyPolicy,
    /// RevokedHostKeys: files that list keys of no host any more.
    pub revoked_host_keys: Vec<PathBuf>,
    /// KnownHostsCommand, which is not run: without it no host's key can be checked.
    pub known_hosts_command: Option<String>,
    /// RequiredRSASize: RSA keys of hosts and users with fewer bits are not used.
    pub required_rsa_size: u32,
    /// BatchMode: nobody is asked anything.
    pub batch_mode: bool,
    /// CheckHostIP: the address may be known with a key, too.
    pub check_host_ip: bool,
    /// NoHostAuthenticationForLocalhost: any key is that of a loopback address.
    pub trusts_localhost: bool,
    /// CASignatureAlgorithms, for host certificates.
    pub ca_signature_algorithms: Algorithms,
    /// HashKnownHosts: write new names hashed.
    pub hash_known_hosts: bool,
    /// ProxyJump or ProxyCommand.
    pub proxy: Proxy,
    /// ServerAliveInterval, if not 0.
    pub keepalive: Option<Duration>,
    /// ServerAliveCountMax; only set if `keepalive` is.
    pub keepalive_count: Option<u32>,
    /// ConnectTimeout, if set.
    pub connect_timeout: Option<Duration>,
    pub pubkey_authentication: bool,
    pub password_authentication: bool,
    pub keyboard_interactive_authentication: bool,
    pub password_prompts: u32,
    /// PreferredAuthentications: these methods only, in this order.
    pub preferred_authentications: Option<Vec<String>>,
    /// CertificateFile, in order, tokens and `~` replaced.
    pub certificate_files: Vec<PathBuf>,
    pub ciphers: Algorithms,
    pub kex_algorithms: Algorithms,
    pub macs: Algorithms,
    pub host_key_algorithms: Algorithms,
    pub pubkey_accepted_algorithms: Algorithms,
    pub compression: bool,
    pub address_family: AddressFamily,
    pub bind_address: Option<String>,
    pub connection_attempts: u32,
    pub update_host_keys: UpdateHostKeys,
    /// AddKeysToAgent, unless it is `no`.
    pub add_keys_to_agent: Option<AddToAgent>,
    /// Keywords that matter, were set, and are not obeyed: to be named in a warning.
    pub not_obeyed: Vec<String>,
    /// Keywords and tokens (`%T`) in their values that ssh does not know there, and refuses; here they stay as they are.
    pub unknown_tokens: Vec<(String, char)>,
    /// Ways to log in that were chosen and that dtunnel does not have: to be named where a login fails.
    pub missing_methods: Vec<MissingMethod>,
    /// What is set that only the machine's ssh obeys, and without which a login would be another one.
    pub only_ssh: Vec<&'static str>,
    /// ControlPath: where a master listens for those who want to use its connection, tokens and `~` replaced.
    pub control_path: Option<PathBuf>,
    /// Options for the machine's ssh where it carries a tunnel: what the profile says, and what this ssh must not do.
    pub for_ssh: Vec<String>,
}

impl SshSettings {
    /// A warning for each of `unknown_tokens`.
    pub(in crate::config) fn token_warnings(&self) -> impl Iterator<Item = String> {
        self.unknown_tokens.iter().map(|(keyword, token)| {
            let token = text::shown(&token.to_string());
            format!("ssh_config has the token `%{token}` in `{keyword}`, where ssh does not know it: it stays as it is")
        })
    }
}

/// A way to log in that ssh has and dtunnel has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingMethod {
    /// GSSAPIAuthentication: Kerberos. Distributions set it for all hosts.
    Gssapi,
    /// HostbasedAuthentication.
    Hostbased,
    /// PKCS11Provider: keys on a smart card, without an agent.
    Pkcs11,
    /// A key file that stands for a security key, without an agent. No keyword chooses it.
    SecurityKey,
}

impl MissingMethod {
    /// Those that a keyword chooses.
    pub(super) const CHOSEN: [Self; 3] = [Self::Gssapi, Self::Hostbased, Self::Pkcs11];

    /// The keyword of ssh_config, or what it is without one.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::SecurityKey => "a security key that no agent has",
            Self::Gssapi => "GSSAPIAuthentication",
            Self::Hostbased => "HostbasedAuthentication",
            Self::Pkcs11 => "PKCS11Provider",
        }
    }
}
