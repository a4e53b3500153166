//! dtunnel's own requests to Docker Engine through a tunnel, over any byte stream.
//!
//! Uses HTTP and the Engine API (docs.docker.com, "Docker Engine API"); independent of SSH and of the stream's origin.
//! Uses hyper for HTTP: for so few requests, a complete Engine client (bollard) would double the binary.

mod containers;
mod session;

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{DATE, HeaderMap, SERVER};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

pub use containers::{Binding, Container, Mounting, Published};
pub use session::{Changes, Session};

use crate::text::shown;

/// An Engine's versions, made safe for a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineVersion {
    /// Its version, such as `27.3.1`.
    pub version: String,
    /// The newest API version it speaks, such as `1.47`.
    pub api_version: String,
}

/// Why a request to the Engine failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer within the limit.
    #[error("it did not answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The stream broke, or the answer was not HTTP.
    #[error("it did not answer as an Engine does")]
    Http(#[from] hyper::Error),
    /// An answer with an error status.
    #[error("it answered with status {0}")]
    Status(StatusCode),
    /// The answer is too large, cut, or not the expected JSON.
    #[error("its answer could not be read: {0}")]
    Body(String),
}

impl Error {
    /// For an answer that is not the expected JSON; serde's message quotes it.
    fn json(error: serde_json::Error) -> Self {
        Self::Body(shown(&error.to_string()))
    }
}

/// Pings the Engine (`GET /_ping`) within `limit` and reads its versions from the answer's headers. If they are missing
/// (as with Podman), requests `/version` on the same stream.
///
/// # Errors
/// Any [`Error`].
pub async fn ping(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    limit: Duration,
) -> Result<EngineVersion, Error> {
    converse(stream, limit, async |session| {
        let headers = session.get("/_ping").await?.0;
        let text = |name: &str| shown(headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default());
        let engine = EngineVersion { version: docker_version(&headers), api_version: text("api-version") };
        if !engine.version.is_empty() && !engine.api_version.is_empty() {
            return Ok(engine);
        }
        ask_version(session).await.map(|version| version.engine)
    })
    .await
}

/// The details of an Engine's `/version`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version {
    pub engine: EngineVersion,
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture, such as `amd64`.
    pub arch: String,
    /// The time on the Engine's host.
    pub date: Option<SystemTime>,
}

/// Requests the Engine's version (`GET /version`) within `limit`.
///
/// # Errors
/// Any [`Error`].
pub async fn version(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    limit: Duration,
) -> Result<Version, Error> {
    converse(stream, limit, ask_version).await
}

/// Runs requests over a new HTTP connection.
async fn converse<T>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    limit: Duration,
    questions: impl AsyncFnOnce(&mut Session) -> Result<T, Error>,
) -> Result<T, Error> {
    let asking = async {
        let mut session = Session::over(stream).await?;
        questions(&mut session).await
    };
    tokio::time::timeout(limit, asking).await.map_err(|_| Error::Timeout(limit))?
}

async fn ask_version(session: &mut Session) -> Result<Version, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Said {
        version: String,
        api_version: String,
        #[serde(default)]
        os: String,
        #[serde(default)]
        arch: String,
    }
    let (headers, body) = session.get("/version").await?;
    let said: Said = serde_json::from_slice(&body).map_err(Error::json)?;
    let date = headers.get(DATE).and_then(|value| value.to_str().ok());
    Ok(Version {
        engine: EngineVersion { version: shown(&said.version), api_version: shown(&said.api_version) },
        os: shown(&said.os),
        arch: shown(&said.arch),
        date: date.and_then(|date| httpdate::parse_http_date(date).ok()),
    })
}

/// `27.3.1` of `Server: Docker/27.3.1 (linux)`.
fn docker_version(headers: &HeaderMap) -> String {
    let server = headers.get(SERVER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let version = server.strip_prefix("Docker/").and_then(|rest| rest.split_whitespace().next());
    shown(version.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The result of `ping` with a peer that sends these answers, which no real Engine sends.
    async fn ping_of(answers: &[&str]) -> Result<EngineVersion, Error> {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let peer = async {
            for answer in answers {
                let mut buffer = [0; 4096];
                let _ = theirs.read(&mut buffer).await;
                theirs.write_all(answer.as_bytes()).await.expect("written");
            }
            drop(theirs);
        };
        tokio::join!(ping(ours, Duration::from_secs(5)), peer).0
    }

    #[tokio::test]
    async fn versions_come_from_the_headers_of_the_ping_or_from_version() {
        let docker = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/20.10.24+dfsg1 (linux)\r\nContent-Length: 2\r\n\r\nOK";
        let engine = ping_of(&[docker]).await.expect("an Engine");
        assert_eq!((engine.version.as_str(), engine.api_version.as_str()), ("20.10.24+dfsg1", "1.41"));
        let ping = "HTTP/1.1 200 OK\r\nServer: Libpod/4.3.1 (linux)\r\nContent-Length: 2\r\n\r\nOK";
        let version = "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n{\"Version\":\"4.3.1\",  \"ApiVersion\": \"1.41\"}";
        let engine = ping_of(&[ping, version]).await.expect("an Engine");
        assert_eq!((engine.version.as_str(), engine.api_version.as_str()), ("4.3.1", "1.41"));
    }

    #[tokio::test]
    async fn what_is_no_engine_is_told_apart() {
        assert!(matches!(ping_of(&["HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"]).await, Err(Error::Status(_))));
        assert!(matches!(ping_of(&["SSH-2.0-x\r\n"]).await, Err(Error::Http(_))));
        assert!(matches!(ping_of(&[]).await, Err(Error::Http(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_limit() {
        let (ours, _theirs) = tokio::io::duplex(1024);
        assert!(matches!(ping(ours, Duration::from_secs(1)).await, Err(Error::Timeout(_))));
    }
}
