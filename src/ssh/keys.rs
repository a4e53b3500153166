//! Private keys: finding and opening them, signing with them, and the cache of unlocked keys.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::Signer;
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey, decode_secret_key, signature};
use zeroize::Zeroizing;

use super::agents::Agents;
use super::error::Skipped;
use super::keyring::{self, Kept};
use super::passwords::Passwords;
use super::prompter::{Prompter, Question, Secret};
use crate::os::private;
use crate::shell_word::shell_word;
use crate::sync::lock;

/// Largest key file that is read, in bytes; an RSA key of 16384 bits has about 13 KB.
const MAX_KEY_FILE: u64 = 1 << 20;
/// Limit for suspending the time limits while a passphrase is tried.
const UNLOCKING: Duration = Duration::from_secs(60);
/// Number of wrong passphrases allowed, as in ssh.
const PASSPHRASE_TRIES: usize = 3;

/// The keys and answers unlocked for this tunnel, so that it can log in again without a person. Kept in the daemon's
/// memory only; never shown by Debug.
#[derive(Clone, Default)]
pub struct Credentials {
    unlocked: Arc<Mutex<Unlocked>>,
    pub(super) passwords: Passwords,
}

#[derive(Default)]
struct Unlocked {
    /// Private keys that needed a passphrase.
    keys: HashMap<PathBuf, Arc<PrivateKey>>,
    /// Keys whose passphrase was read from the keyring: a wrong one would be wrong again.
    fetched: Vec<Kept>,
    /// Whether correct answers are stored in the keyring.
    remember: bool,
    /// Whether the agent is known to ask its owner before it signs.
    agent_asks: bool,
    agents: Agents,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Starts with nothing unlocked. With `remember`, correct answers go into the system keyring.
    pub fn new(remember: bool) -> Self {
        let credentials = Self::default();
        credentials.with(|unlocked| unlocked.remember = remember);
        credentials
    }

    /// The passphrase from the keyring; None from the second call for a key on.
    async fn fetch_once(&self, kept: &Kept) -> Option<Secret> {
        let new = self.with(|unlocked| {
            let new = !unlocked.fetched.contains(kept);
            if new {
                unlocked.fetched.push(kept.clone());
            }
            new
        });
        if new { keyring::fetch_while_logging_in(kept.clone()).await } else { None }
    }

    /// Prefers this ssh-agent from now on, where ssh_config names none. Whether it asks its owner is not known. Tells
    /// whether another one was preferred before.
    pub fn prefer_agent(&self, socket: PathBuf) -> bool {
        self.with(|unlocked| {
            let is_new = unlocked.agents.all().first() != Some(&socket);
            if is_new {
                unlocked.agent_asks = false;
                unlocked.agents.prefer(socket);
            }
            is_new
        })
    }

    /// The sockets of the user's ssh-agents, the preferred one first.
    pub(super) fn agents(&self) -> Vec<PathBuf> {
        self.with(|unlocked| unlocked.agents.all())
    }

    pub(super) fn note_that_agent_asks(&self) {
        self.with(|unlocked| unlocked.agent_asks = true);
    }

    /// Whether the agent is known to ask its owner before it signs.
    pub(super) fn agent_asks(&self) -> bool {
        self.with(|unlocked| unlocked.agent_asks)
    }

    /// Whether correct answers are stored in the keyring.
    pub(super) fn remember(&self) -> bool {
        self.with(|unlocked| unlocked.remember)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Unlocked) -> T) -> T {
        work(&mut lock(&self.unlocked))
    }
}

/// The parts of an identity file that are readable without its passphrase.
pub(super) struct KeyFile {
    pub(super) public: Option<PublicKey>,
    pub(super) has_private: bool,
    /// Why the private half cannot be used, if that is already known.
    pub(super) unusable: Option<Skipped>,
    /// Is it because it stands for a security key?
    pub(super) is_on_token: bool,
    /// The certificate beside it, `NAME-cert.pub`.
    pub(super) certificate: Option<Certificate>,
}

impl KeyFile {
    /// Reads an identity file; None if neither the file nor its `.pub` exists.
    pub(super) fn find(path: &Path) -> Option<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".pub");
        let mut certificate = path.as_os_str().to_owned();
        certificate.push("-cert.pub");
        let certificate = read_certificate(Path::new(&certificate));
        let beside = std::fs::read_to_string(&name).ok().and_then(|text| text.parse::<PublicKey>().ok());
        match read_key_file(path) {
            // An encrypted OpenSSH private key has a readable public key. IdentityFile may also name a public key whose
            // private key is in the agent.
            Ok(text) => {
                let inside = PrivateKey::from_openssh(text.as_bytes()).ok().map(|key| key.public_key().clone());
                let named = Certificate::from_openssh(text.trim()).ok();
                let of_named = named.as_ref().map(|named| PublicKey::new(named.public_key().clone(), ""));
                let itself = text.parse::<PublicKey>().ok().or(of_named);
                let (is_public, public) = (itself.is_some(), inside.or(itself).or(beside));
                let unusable = public.as_ref().filter(|public| !is_public && is_on_token(public)).map(|_| Skipped {
                    what: path.display().to_string(),
                    why: "it is on a security key, which dtunnel can ask through an ssh-agent only".into(),
                    fix: Some(format!("ssh-add {}", shell_word(&path.to_string_lossy()))),
                });
                let has_private = !is_public && unusable.is_none();
                let is_on_token = unusable.is_some();
                Some(Self { has_private, public, unusable, is_on_token, certificate: named.or(certificate) })
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => beside.map(|public| Self {
                public: Some(public),
                has_private: false,
                unusable: None,
                is_on_token: false,
                certificate,
            }),
            // A public key file beside it may still identify a key of the agent.
            Err(e) => {
                tracing::warn!("cannot read the key {}: {e}", path.display());
                let fix = (e.kind() == std::io::ErrorKind::PermissionDenied && is_mine(path))
                    .then(|| format!("chmod 600 {}", shell_word(&path.to_string_lossy())));
                let unusable = Some(Skipped { what: path.display().to_string(), why: e.to_string(), fix });
                Some(Self { public: beside, has_private: false, unusable, is_on_token: false, certificate })
            }
        }
    }
}

/// Is its private half on a security key (PROTOCOL.u2f of OpenSSH)?
fn is_on_token(key: &PublicKey) -> bool {
    matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

/// Reads a certificate file. A missing file is None; an unreadable one is a warning.
pub(super) fn read_certificate(path: &Path) -> Option<Certificate> {
    let text = std::fs::read_to_string(path).ok()?;
    Certificate::from_openssh(text.trim())
        .inspect_err(|e| tracing::warn!("cannot use the certificate {}: {e}", path.display()))
        .ok()
}

/// Reads a key file. Like ssh, refuses a file that others may read.
fn read_key_file(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEY_FILE).read_to_string(&mut text)?;
    let is_public = || text.parse::<PublicKey>().is_ok() || Certificate::from_openssh(text.trim()).is_ok();
    if let Some(how) = private::readable_by_others(&meta)
        && !is_public()
    {
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, format!("others may read it ({how})")));
    }
    Ok(text)
}

fn is_mine(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| private::is_mine(&meta))
}

/// Why a private key could not be used.
pub(super) enum LoadError {
    /// No passphrase was given.
    Nobody,
    Other(String),
}

pub(super) async fn load_key(
    path: &Path,
    prompter: &Prompter,
    credentials: &Credentials,
) -> Result<Arc<PrivateKey>, LoadError> {
    if let Some(key) = credentials.with(|unlocked| unlocked.keys.get(path).cloned()) {
        return Ok(key);
    }
    let other = |e: &dyn fmt::Display| LoadError::Other(format!("cannot use the key {}: {e}", path.display()));
    let text = read_key_file(path).map_err(|e| other(&e))?;
    match decode_secret_key(&text, None) {
        Ok(key) => return Ok(Arc::new(key)),
        Err(e) if is_encrypted(&text, &e) => {}
        Err(e) => return Err(other(&e)),
    }
    let unlocked = |key: PrivateKey| {
        let key = Arc::new(key);
        credentials.with(|unlocked| unlocked.keys.insert(path.into(), key.clone()));
        key
    };
    let kept = Kept::Passphrase(path.into());
    if let Some(passphrase) = credentials.fetch_once(&kept).await {
        match decode(&text, &passphrase, prompter).await {
            Some(key) => return Ok(unlocked(key)),
            None => tracing::warn!("the {kept} in the system keyring is wrong"),
        }
    }
    for again in 0..PASSPHRASE_TRIES {
        let question = Question::Passphrase { file: path.display().to_string(), again: again > 0 };
        let answer = prompter.ask(question).await.ok_or(LoadError::Nobody)?;
        if answer.reveal().is_empty() {
            return Err(LoadError::Other(format!("cannot use the key {}: no passphrase was given", path.display())));
        }
        if let Some(key) = decode(&text, &answer, prompter).await {
            if credentials.remember() {
                keyring::keep_while_logging_in(kept, answer).await;
            }
            return Ok(unlocked(key));
        }
    }
    Err(other(&"the passphrase was wrong three times"))
}

/// Opens an encrypted key. bcrypt-pbkdf is meant to be slow: it runs off the thread that carries the flows, and outside
/// the login's time limit.
async fn decode(text: &Zeroizing<String>, passphrase: &Secret, prompter: &Prompter) -> Option<PrivateKey> {
    let _hold = prompter.hold(UNLOCKING);
    let (text, passphrase) = (text.clone(), passphrase.clone());
    let decoding = tokio::task::spawn_blocking(move || decode_secret_key(&text, Some(passphrase.reveal())).ok());
    decoding.await.ok().flatten()
}

/// russh reports an encrypted PKCS#8 file without a passphrase as broken.
fn is_encrypted(text: &str, error: &russh::keys::Error) -> bool {
    matches!(error, russh::keys::Error::KeyIsEncrypted) || text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// Whether this key needs a passphrase. False if it cannot be read.
pub fn needs_passphrase(path: &Path) -> bool {
    read_key_file(path).is_ok_and(|text| decode_secret_key(&text, None).is_err_and(|e| is_encrypted(&text, &e)))
}

/// Whether this passphrase decrypts the key.
pub fn opens(path: &Path, passphrase: &Secret) -> bool {
    read_key_file(path).is_ok_and(|text| decode_secret_key(&text, Some(passphrase.reveal())).is_ok())
}

/// Signs with a key file. Opens it, and asks for its passphrase, only after the server has said
/// that it would accept the key.
pub(super) struct FileSigner {
    path: PathBuf,
    prompter: Prompter,
    credentials: Credentials,
    /// Whether the passphrase was needed but nobody could give it.
    pub(super) nobody: bool,
}

impl FileSigner {
    pub(super) fn new(path: &Path, prompter: &Prompter, credentials: &Credentials) -> Self {
        Self { path: path.into(), prompter: prompter.clone(), credentials: credentials.clone(), nobody: false }
    }
}

/// Why a signature could not be made.
pub(super) struct SignError(pub(super) String);

impl From<russh::SendError> for SignError {
    fn from(error: russh::SendError) -> Self {
        Self(error.to_string())
    }
}

impl Signer for FileSigner {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        let key = load_key(&self.path, &self.prompter, &self.credentials).await.map_err(|e| match e {
            LoadError::Nobody => {
                self.nobody = true;
                SignError("its passphrase was not given".into())
            }
            LoadError::Other(message) => SignError(message),
        })?;
        let failed = |e: &dyn fmt::Display| SignError(format!("cannot sign: {e}"));
        let signature = match key.key_data() {
            KeypairData::Rsa(rsa) => signature::Signer::try_sign(&(rsa, hash), &to_sign),
            other => signature::Signer::try_sign(other, &to_sign),
        }
        .map_err(|e| failed(&e))?;
        let mut encoded = Vec::new();
        signature.encode(&mut encoded).map_err(|e| failed(&e))?;
        encoded.encode(&mut to_sign).map_err(|e| failed(&e))?;
        Ok(to_sign)
    }
}
