//! Facts about a connection, for reports to people.

use russh::Names;

/// The algorithms agreed on with a server in the key exchange (RFC 4253 section 7.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// The server's version, such as `SSH-2.0-OpenSSH_9.2p1`.
    pub server: String,
    pub kex: String,
    /// Type of the host key.
    pub host_key: String,
    pub cipher: String,
    /// MAC; meaningless if the cipher is an AEAD.
    pub mac: String,
    /// Whether the handshake is protected against dropped packets (strict KEX, PROTOCOL section 1.10 of OpenSSH).
    pub strict: bool,
}

impl Negotiated {
    pub(super) fn new(server: String, names: &Names) -> Self {
        Self {
            server,
            kex: names.kex.as_ref().into(),
            host_key: names.key.to_string(),
            cipher: names.cipher.as_ref().into(),
            mac: names.client_mac.as_ref().into(),
            strict: names.strict_kex(),
        }
    }
}

/// The login methods tried and offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The methods and keys tried; the last one succeeded.
    pub tried: Vec<String>,
    /// The methods that the server offered during the login.
    pub offered: Vec<String>,
}
