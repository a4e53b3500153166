//! An ssh-agent that holds a security key, since no machine of ours has one: it answers as ssh-agent
//! does (draft-ietf-sshm-ssh-agent) and signs as an authenticator would (PROTOCOL.u2f of OpenSSH).
//! What it signs is checked by the real sshd.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{PrivateKey, signature::Signer};
use sha2::{Digest, Sha256};

const APPLICATION: &[u8] = b"ssh:";
/// Somebody has touched the key.
const USER_PRESENT: u8 = 1;
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// What the agent holds.
struct SecurityKey {
    name: &'static str,
    public: Vec<u8>,
    /// The plain key inside the authenticator.
    inner: PrivateKey,
}

/// Serves an agent on `socket` whose security key has the plain key of the file `inner` inside
/// (ed25519 or ecdsa, nistp256). Returns its line for authorized_keys.
pub fn agent(socket: &Path, inner: &Path) -> String {
    let inner = PrivateKey::from_openssh(std::fs::read(inner).unwrap()).unwrap();
    let (name, point) = match inner.key_data() {
        KeypairData::Ed25519(pair) => ("sk-ssh-ed25519@openssh.com", string(&pair.public.0)),
        KeypairData::Ecdsa(pair) => {
            ("sk-ecdsa-sha2-nistp256@openssh.com", [string(b"nistp256"), string(pair.public_key_bytes())].concat())
        }
        _ => panic!("no security key is of this kind"),
    };
    let public = [string(name.as_bytes()), point, string(APPLICATION)].concat();
    let key = Arc::new(SecurityKey { name, public, inner });
    let listener = UnixListener::bind(socket).unwrap();
    let line = format!("{name} {}\n", base64(&key.public));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, key) = (stream.unwrap(), key.clone());
            std::thread::spawn(move || while serve(&mut stream, &key).is_ok() {});
        }
    });
    line
}

/// One request and its answer.
fn serve(stream: &mut UnixStream, key: &SecurityKey) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut request = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut request)?;
    let answer = match request[0] {
        REQUEST_IDENTITIES => {
            [&[IDENTITIES_ANSWER, 0, 0, 0, 1][..], &string(&key.public), &string(b"a security key")].concat()
        }
        SIGN_REQUEST => {
            let (public, rest) = take_string(&request[1..]);
            assert_eq!(public, key.public);
            [&[SIGN_RESPONSE][..], &string(&key.sign(take_string(rest).0))].concat()
        }
        _ => vec![FAILURE],
    };
    stream.write_all(&string(&answer))
}

impl SecurityKey {
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let after = [&[USER_PRESENT][..], &1_u32.to_be_bytes()].concat();
        let signed = [&Sha256::digest(APPLICATION)[..], &after, &Sha256::digest(data)].concat();
        let signature = Signer::try_sign(&self.inner, &signed).unwrap();
        [string(self.name.as_bytes()), string(signature.as_bytes()), after].concat()
    }
}

/// A string of RFC 4251 section 5.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn take_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_at(4);
    rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize)
}

fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let sextet = word >> (18 - 6 * at) & 63;
            text.push(if at <= chunk.len() { alphabet[sextet as usize] as char } else { '=' });
        }
    }
    text
}
