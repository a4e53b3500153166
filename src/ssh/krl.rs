//! Key revocation lists (PROTOCOL.krl of OpenSSH): whether one revokes a key or certificate.
//!
//! A list is read to its end before its answer counts. Invalid or unknown parts are an error: they may revoke the key.

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The magic number at the start of a list.
pub(super) const MAGIC: &[u8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;

const CERTIFICATES: u8 = 1;
const EXPLICIT_KEY: u8 = 2;
const FINGERPRINT_SHA1: u8 = 3;
const FINGERPRINT_SHA256: u8 = 5;
const EXTENSION: u8 = 255;

const SERIAL_LIST: u8 = 0x20;
const SERIAL_RANGE: u8 = 0x21;
const SERIAL_BITMAP: u8 = 0x22;
const KEY_ID: u8 = 0x23;
const CERT_EXTENSION: u8 = 0x39;

/// Whether `list` revokes `key`, its certificate or the authority that signed that.
///
/// # Errors
/// Why the list is invalid, as text that follows the file's name.
pub(super) fn revokes(list: &[u8], key: &KeyData, certificate: Option<&Certificate>) -> Result<bool, String> {
    let keys = [Some(key), certificate.map(Certificate::signature_key)];
    let blobs = keys.into_iter().flatten().map(blob).collect::<Result<Vec<_>, _>>()?;
    let mut reader = Reader(list);
    if reader.take(MAGIC.len())? != MAGIC || reader.uint32()? != FORMAT_VERSION {
        return Err("is a key revocation list of an unknown version".into());
    }
    // The list's version, creation time and flags. ssh ignores flags as well.
    reader.take(3 * 8)?;
    // A reserved field, and a comment.
    reader.string()?;
    reader.string()?;
    let mut revoked = false;
    while !reader.is_empty() {
        let kind = reader.byte()?;
        let mut section = Reader(reader.string()?);
        match kind {
            CERTIFICATES => revoked |= certificates(&mut section, certificate)?,
            EXPLICIT_KEY => revoked |= section.any(|entry| Ok(blobs.iter().any(|blob| blob == entry)))?,
            FINGERPRINT_SHA1 => revoked |= section.any(|entry| hashed::<Sha1>(entry, &blobs))?,
            FINGERPRINT_SHA256 => revoked |= section.any(|entry| hashed::<Sha256>(entry, &blobs))?,
            EXTENSION => section.extension()?,
            other => return Err(format!("has a section of kind {other}, which dtunnel does not know")),
        }
    }
    Ok(revoked)
}

fn blob(key: &KeyData) -> Result<Vec<u8>, String> {
    PublicKey::from(key.clone()).to_bytes().map_err(|e| format!("cannot be compared with the key: {e}"))
}

fn hashed<D: Digest>(entry: &[u8], blobs: &[Vec<u8>]) -> Result<bool, String> {
    if entry.len() != <D as Digest>::output_size() {
        return Err("has a fingerprint of a wrong length".into());
    }
    Ok(blobs.iter().any(|blob| D::digest(blob).as_slice() == entry))
}

/// Section type 1: certificates of one authority, or of all authorities.
fn certificates(section: &mut Reader, certificate: Option<&Certificate>) -> Result<bool, String> {
    let authority = section.string()?;
    // Reserved.
    section.string()?;
    let all = authority.is_empty();
    if !all {
        PublicKey::from_bytes(authority).map_err(|e| format!("names an authority that cannot be read: {e}"))?;
    }
    let of_it = match certificate {
        Some(certificate) if all || blob(certificate.signature_key())? == authority => Some(certificate),
        _ => None,
    };
    // Serial 0 means that the certificate has none (`is_cert_revoked` in OpenSSH's krl.c).
    let serial = of_it.map(Certificate::serial).filter(|serial| *serial != 0);
    let mut revoked = false;
    while !section.is_empty() {
        let kind = section.byte()?;
        let mut entries = Reader(section.string()?);
        match kind {
            SERIAL_LIST => {
                while !entries.is_empty() {
                    let listed = entries.uint64()?;
                    if listed == 0 {
                        return Err("lists the serial 0".into());
                    }
                    revoked |= serial == Some(listed);
                }
            }
            SERIAL_RANGE => {
                let (least, most) = (entries.uint64()?, entries.uint64()?);
                if least == 0 || least > most {
                    return Err("has an invalid range of serials".into());
                }
                revoked |= serial.is_some_and(|serial| (least..=most).contains(&serial));
                entries.end()?;
            }
            SERIAL_BITMAP => {
                let offset = entries.uint64()?;
                let bits = entries.string()?;
                entries.end()?;
                if bits.first().is_some_and(|first| first & 0x80 != 0) {
                    return Err("has an invalid bitmap of serials (a negative number)".into());
                }
                let bits = bits.strip_prefix(&[0]).unwrap_or(bits);
                let highest = (bits.len() as u64 * 8).saturating_sub(1);
                if offset.checked_add(highest).is_none()
                    || (offset == 0 && bits.last().is_some_and(|last| last & 1 != 0))
                {
                    return Err("has an invalid bitmap of serials".into());
                }
                revoked |= serial.and_then(|serial| serial.checked_sub(offset)).is_some_and(|at| bit(bits, at));
            }
            KEY_ID => revoked |= entries.any(|entry| Ok(of_it.is_some_and(|it| it.key_id().as_bytes() == entry)))?,
            CERT_EXTENSION => entries.extension()?,
            other => return Err(format!("has a list of certificates of kind {other}, which dtunnel does not know")),
        }
    }
    Ok(revoked)
}

/// The bit `at` (0 is the least significant) of a big-endian number.
fn bit(bytes: &[u8], at: u64) -> bool {
    let index = usize::try_from(at / 8).ok().and_then(|index| bytes.len().checked_sub(index + 1));
    index.is_some_and(|index| bytes[index] >> (at % 8) & 1 == 1)
}

/// Reads the data types of RFC 4251 section 5 from the front of the slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("is a key revocation list that is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn uint32(&mut self) -> Result<u32, String> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn uint64(&mut self) -> Result<u64, String> {
        Ok(self.take(8)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let length = self.uint32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn end(&self) -> Result<(), String> {
        if self.is_empty() { Ok(()) } else { Err("is a key revocation list with data after its end".into()) }
    }

    /// Whether any of the strings matches. Reads all of them.
    fn any(&mut self, mut is: impl FnMut(&[u8]) -> Result<bool, String>) -> Result<bool, String> {
        let mut found = false;
        while !self.is_empty() {
            found |= is(self.string()?)?;
        }
        Ok(found)
    }

    /// Skips an extension of a later version, unless it is marked critical.
    fn extension(&mut self) -> Result<(), String> {
        let name = String::from_utf8_lossy(self.string()?).into_owned();
        let is_critical = self.byte()? != 0;
        self.string()?;
        self.end()?;
        if is_critical { Err(format!("has the extension {name:?}, which dtunnel does not know")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn keygen(dir: &Path, args: &[&str]) -> bool {
        let output = Command::new("ssh-keygen").current_dir(dir).args(args).output().expect("ssh-keygen");
        output.status.success()
    }

    /// Compares lists of every kind, made by ssh-keygen, with its own verdict on each key and certificate.
    #[test]
    fn what_is_revoked_is_what_ssh_keygen_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        for (name, kind) in [("ca", "ed25519"), ("other-ca", "ecdsa"), ("a", "ed25519"), ("b", "rsa"), ("c", "ecdsa")] {
            assert!(keygen(dir, &["-q", "-N", "", "-C", name, "-t", kind, "-f", name]));
        }
        // Name, authority, id and serial of each certificate.
        let certificates = [("a", "ca", "one", "7"), ("b", "ca", "two", "70"), ("c", "other-ca", "one", "0")];
        for (name, authority, id, serial) in certificates {
            assert!(keygen(
                dir,
                &["-q", "-s", authority, "-I", id, "-z", serial, "-h", "-n", "host", &format!("{name}.pub")]
            ));
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("readable");
        let key_a = read("a.pub");
        let specifications: [(&str, &[&str]); 15] = [
            ("", &[]),
            (&format!("key: {key_a}"), &[]),
            (&format!("sha1: {key_a}"), &[]),
            (&format!("sha256: {key_a}"), &[]),
            (&format!("key: {}", read("ca.pub")), &[]),
            (&format!("sha256: {}", read("ca.pub")), &[]),
            ("serial: 7\n", &["-s", "ca.pub"]),
            ("serial: 8-100\n", &["-s", "ca.pub"]),
            ("serial: 7\n", &["-s", "other-ca.pub"]),
            ("serial: 5\nserial: 7\nserial: 9\nserial: 11\nserial: 12\nserial: 14\n", &["-s", "ca.pub"]),
            ("serial: 64\nserial: 66\nserial: 68\nserial: 70\nserial: 72\nserial: 73\n", &["-s", "ca.pub"]),
            ("serial: 1\nserial: 1000000\nserial: 18446744073709551615\n", &["-s", "ca.pub"]),
            ("id: one\n", &["-s", "ca.pub"]),
            ("id: one\n", &["-s", "none"]),
            ("id: three\nid: two\nserial: 9-11\n", &["-s", "ca.pub"]),
        ];
        let mut verdicts = [0; 2];
        for (text, options) in specifications {
            std::fs::write(dir.join("spec"), text).expect("written");
            let args = [&["-q", "-k", "-f", "krl"], options, &["spec"]].concat();
            assert!(keygen(dir, &args), "{text} {options:?}");
            let list = std::fs::read(dir.join("krl")).expect("readable");
            for name in ["a", "b", "c"] {
                let key: PublicKey = read(&format!("{name}.pub")).parse().expect("a key");
                let file = format!("{name}-cert.pub");
                let certificate = Certificate::from_openssh(read(&file).trim()).expect("a certificate");
                for (certificate, file) in [(None, format!("{name}.pub")), (Some(&certificate), file)] {
                    let revoked = !keygen(dir, &["-Q", "-f", "krl", &file]);
                    let ours = revokes(&list, key.key_data(), certificate);
                    assert_eq!(ours, Ok(revoked), "{text} {options:?}: {file}");
                    verdicts[usize::from(revoked)] += 1;
                }
                // A list cut anywhere is invalid, except at the end of a section: ssh-keygen reads that as well.
                for length in 0..list.len() {
                    let cut = revokes(&list[..length], key.key_data(), Some(&certificate));
                    if cut.is_ok() && name == "a" {
                        std::fs::write(dir.join("cut"), &list[..length]).expect("written");
                        let output =
                            Command::new("ssh-keygen").current_dir(dir).args(["-Q", "-l", "-f", "cut"]).output();
                        assert!(output.expect("ssh-keygen").status.success(), "{text}: cut at {length}");
                    }
                }
            }
        }
        assert!(verdicts.iter().all(|count| *count > 15), "{verdicts:?}");
    }

    #[test]
    fn what_is_not_known_or_cannot_be_is_an_error() {
        let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
        let head = [MAGIC, &1_u32.to_be_bytes(), &[0; 24], &string(b""), &string(b"")].concat();
        let section = |kind: u8, data: &[u8]| [&[kind], &string(data)[..]].concat();
        let in_certificates =
            |kind: u8, data: &[u8]| section(CERTIFICATES, &[string(b""), string(b""), section(kind, data)].concat());
        let extension = |critical: u8| [&string(b"x@y")[..], &[critical], &string(b"")].concat();
        let key: PublicKey =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio".parse().expect("a key");
        let check = |tail: &[u8]| revokes(&[&head, tail].concat(), key.key_data(), None);
        assert_eq!(check(&[]), Ok(false));
        assert_eq!(check(&section(EXTENSION, &extension(0))), Ok(false));
        assert_eq!(check(&in_certificates(CERT_EXTENSION, &extension(0))), Ok(false));
        for wrong in [
            section(EXTENSION, &extension(1)),
            section(4, b"a signature"),
            section(9, b""),
            section(FINGERPRINT_SHA1, &string(&[0; 32])),
            section(FINGERPRINT_SHA256, &string(&[0; 20])),
            section(CERTIFICATES, &[string(b"no key"), string(b"")].concat()),
            in_certificates(CERT_EXTENSION, &extension(1)),
            in_certificates(0x24, b""),
            in_certificates(SERIAL_LIST, &[0; 8]),
            in_certificates(SERIAL_RANGE, &[0; 16]),
            in_certificates(SERIAL_RANGE, &[9_u64.to_be_bytes(), 8_u64.to_be_bytes()].concat()),
            in_certificates(SERIAL_BITMAP, &[&u64::MAX.to_be_bytes()[..], &string(&[2])].concat()),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
        assert!(revokes(MAGIC, key.key_data(), None).is_err());
    }
}
