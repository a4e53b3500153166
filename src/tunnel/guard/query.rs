//! A request's query, read as by the Engine (Go's `url.ParseQuery`) and written anew.
//!
//! It is decoded once. The decoded names and values are judged, and the query that is sent is written from them, so
//! that a second reader cannot interpret it differently.

use std::fmt::Write;

use super::refusal::Refusal;

/// Limit of a written query, in bytes: hyper accepts a target of 64 KiB, path included.
const MAX: usize = 48 << 10;

/// Names and values in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Reads the text after the question mark.
    ///
    /// # Errors
    /// It has no meaning, or more than one.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        // Go up to 1.16 splits at a semicolon; from 1.17 on it drops the pair.
        if text.contains(';') {
            return Err("its query has a semicolon in it");
        }
        if text.contains('#') {
            return Err("its query has a fragment behind it");
        }
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8(decoded(name, true)?).ok();
            let plain = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
            pairs.push((name.filter(plain).ok_or("a name in its query is not valid")?, decoded(value, true)?));
        }
        let query = Self(pairs);
        if query.to_string().len() > MAX { Err("its query is too long") } else { Ok(query) }
    }

    /// The first value of this name, which is the one that the Engine reads. Empty if there is none.
    pub(super) fn get(&self, name: &str) -> &[u8] {
        self.0.iter().find(|(key, _)| key == name).map_or(&[], |(_, value)| value)
    }

    /// As [`Self::get`]; None if it is not UTF-8.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)).ok()
    }

    /// Each name, as often as it occurs.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Removes parameters by name.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| wanted(name));
    }

    /// Removes all but the first value of these names.
    pub(super) fn first_only(&mut self, of: impl Fn(&str) -> bool) {
        let mut seen = std::collections::BTreeSet::new();
        self.0.retain(|(name, _)| seen.insert(name.clone()) || !of(name));
    }

    /// Replaces the value of this name.
    pub(super) fn replace(&mut self, name: &str, value: String) {
        if let Some((_, old)) = self.0.iter_mut().find(|(key, _)| key == name) {
            *old = value.into_bytes();
        }
    }

    /// The target for `path` with this query.
    pub(super) fn behind(&self, path: String) -> String {
        if self.0.is_empty() { path } else { format!("{path}?{self}") }
    }
}

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "&" };
            write!(f, "{between}{}={}", encoded(name.as_bytes()), encoded(value))?;
        }
        Ok(())
    }
}

/// Removes the percent-encoding once; in a query `+` means a space.
pub(super) fn decoded(text: &str, plus: bool) -> Result<Vec<u8>, Refusal> {
    let mut all = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        all.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err("a % in its target encodes nothing");
                };
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    Ok(all)
}

/// Encodes all bytes but unreserved characters (RFC 3986 section 2.3).
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_go_reads_it() {
        for (text, written) in [
            ("", ""),
            ("&&", ""),
            ("all", "all="),
            ("all=1&&size=", "all=1&size="),
            ("a=b=c", "a=b%3Dc"),
            ("a=1+2%2B3%20", "a=1%202%2B3%20"),
            ("%61ll=%31", "all=1"),
            ("path=/a%0Ab%ff", "path=%2Fa%0Ab%FF"),
            (r#"filters={"status":["running"]}"#, "filters=%7B%22status%22%3A%5B%22running%22%5D%7D"),
            ("x=%3b%26%23", "x=%3B%26%23"),
            ("x=%2525", "x=%2525"),
        ] {
            let query = Query::read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(query.to_string(), written, "{text}");
            assert_eq!(Query::read(written), Ok(query), "{text}: what is written is read alike");
        }
        for text in ["a=1;b=2", "a;b", "a=%", "a=%4", "a=%zz", "%=1", "=1", "a%00=1", "a%0a=1", "%ff=1", "a#b", "a+b=1"]
        {
            assert!(Query::read(text).is_err(), "{text}");
        }
        assert!(Query::read(&format!("a={}", "{".repeat(MAX / 2))).is_err());
        assert_eq!(Query::read("t=1&t=2").expect("read").get("t"), b"1");
    }
}
