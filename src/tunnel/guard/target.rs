//! A request's target: its path and query, decoded once.
//!
//! The Engine's router (gorilla/mux) also decodes a path once and then treats an encoded slash like any other. What is
//! sent on is the decoded path, which leaves nothing to decode, and so nothing to interpret differently.

use std::borrow::Cow;

use super::operation::Operation;
use super::operations::{self, ENCODED_SLASH};
use super::query::{Query, decoded};
use super::refusal::Refusal;

/// A target with a single meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The decoded path, without its version.
    pub(super) path: String,
    /// `/v1.41`, or empty.
    pub(super) version: String,
    /// The decoded query.
    pub(super) query: Query,
    /// The requested operation, if known.
    pub(super) operation: Option<&'static Operation>,
}

impl Target {
    /// Reads the target in a request line.
    ///
    /// # Errors
    /// It has no meaning, or more than one.
    pub(super) fn read(method: &str, target: &str) -> Result<Self, Refusal> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !path.starts_with('/') {
            return Err("its target is not a path");
        }
        let query = Query::read(query)?;
        // Encoded slashes are marked, to tell them from plain ones.
        let divided = match path.contains('%') || path.contains(ENCODED_SLASH) {
            true => Cow::from(path.split('/').map(segment).collect::<Result<Vec<String>, Refusal>>()?.join("/")),
            false => path.into(),
        };
        let plain = without_marks(&divided);
        let known = |c: char| c.is_ascii_alphanumeric() || "/_.-:@+[] ".contains(c);
        if path.contains(' ') || !plain.chars().all(known) {
            return Err("its path has odd characters in it");
        }
        let (version, divided) = operations::version(&divided);
        // The only path of the Engine that ends in a slash; it means the same without.
        let divided = if divided == "/networks/" { "/networks" } else { divided };
        let path = without_marks(divided);
        if path[1..].split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..") {
            return Err("its path has empty or dotted segments");
        }
        let operation = operations::find(method, &path, &query);
        let same_version = operations::version(&plain).0 == version;
        let has_encoded_slash = divided != path;
        if has_encoded_slash && operations::find(method, divided, &query) != operation || !same_version {
            return Err("an encoded slash in its path changes what it asks for");
        }
        Ok(Self { path: path.into_owned(), version: version.to_owned(), query, operation })
    }

    /// The target with another query.
    pub(super) fn with(&self, query: &Query) -> String {
        // The only allowed character of a path that must be encoded in a request line.
        query.behind([&self.version, self.path.replace(' ', "%20").as_str()].concat())
    }

    /// The target to send.
    pub(super) fn written(&self) -> String {
        self.with(&self.query)
    }
}

/// The path with plain slashes in place of marked ones.
fn without_marks(divided: &str) -> Cow<'_, str> {
    if divided.contains(ENCODED_SLASH) { divided.replace(ENCODED_SLASH, "/").into() } else { divided.into() }
}

/// Decodes one segment of a path.
fn segment(text: &str) -> Result<String, Refusal> {
    let text = String::from_utf8(decoded(text, false)?).map_err(|_| "its path has odd characters in it")?;
    if text.contains(ENCODED_SLASH) {
        return Err("its path has odd characters in it");
    }
    Ok(text.replace('/', &ENCODED_SLASH.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_has_one_meaning() {
        for (method, target, written, operation) in [
            ("GET", "/_ping", "/_ping", Some("system.ping")),
            ("GET", "/%5fping", "/_ping", Some("system.ping")),
            // docker-java
            (
                "GET",
                "/images/testcontainers%2Fryuk:0.5.1/json",
                "/images/testcontainers/ryuk:0.5.1/json",
                Some("images.inspect"),
            ),
            // docker-py
            ("GET", "/v1.41/images/a%40sha256%3A0/json", "/v1.41/images/a@sha256:0/json", Some("images.inspect")),
            ("GET", "/images/[::1]:5000/x:1/json", "/images/[::1]:5000/x:1/json", Some("images.inspect")),
            ("GET", "/images/%5B::1%5D:5000%2Fx/json", "/images/[::1]:5000/x/json", Some("images.inspect")),
            ("GET", "/networks/a%20b", "/networks/a%20b", Some("networks.inspect")),
            ("GET", "/v1.41/networks/", "/v1.41/networks", Some("networks.list")),
            ("GET", "/networks/?filters={}", "/networks?filters=%7B%7D", Some("networks.list")),
            ("DELETE", "/images/a%2Fb", "/images/a/b", Some("images.delete")),
            ("GET", "/containers/a%2Fb/json", "/containers/a/b/json", None),
            ("GET", "/nothing%2Fknown", "/nothing/known", None),
        ] {
            let read = Target::read(method, target).unwrap_or_else(|e| panic!("{target}: {e}"));
            assert_eq!(read.written(), written, "{target}");
            assert_eq!(read.operation.map(|operation| operation.name), operation, "{target}");
            assert_eq!(Target::read(method, written), Ok(read), "{target}: what is written is read alike");
        }
        for target in [
            "info",
            "",
            "*",
            "http://x/info",
            "/",
            "//info",
            "/info/",
            "/networks//",
            "/networks/x/",
            "/info%",
            "/info%2",
            "/info%zz",
            "/info%25",
            "/info%252e",
            "/info%00",
            "/info%0a",
            "/info%3f",
            "/info%23",
            "/info%c3%b6",
            "/info%ff",
            "/%2e%2e/info",
            "/containers/%2e/json",
            "/v1.41/%2e%2e/info",
            "/a%2f%2fb",
            "/images/a%2f..%2fb/json",
            // Its meaning depends on whether the slash is decoded.
            "/containers%2fjson",
            "/images/a%2Fjson",
            "/images%2fa/json",
            "/v1.41%2finfo",
            "/networks%2f",
            "/images/json%2f",
            "/containers/x%2fjson",
            "/info\x1f",
            "/info%1f",
            "/images/a\x1fb/json",
            "/images/a%1fb/json",
            "/info~",
            "/in fo",
        ] {
            assert!(Target::read("GET", target).is_err(), "{target}");
        }
    }
}
