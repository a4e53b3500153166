//! Checks of the route to the host's SSH server: the target's settings, its address, TCP, the greeting.

use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

use super::check::Verdict;
use super::examination::{Examination, LIMIT, Stage};
use crate::config::Proxy;
use crate::host;
use crate::ssh::{self, Phase};
use crate::text;

/// Limit of a server's greeting, in bytes (RFC 4253 section 4.2: 255 per line).
const MAX_GREETING: u64 = 1024;
/// Limit of its displayed part, in characters.
const MAX_LINE: usize = 255;

/// The target, and notes on its settings.
pub(super) async fn describe(examination: &mut Examination<'_>) -> Result<Stage, host::Error> {
    let target = examination.target;
    let way = match &target.ssh.proxy {
        Proxy::None => String::new(),
        Proxy::Command(command) => format!(" through `{command}`"),
        Proxy::Jump(hops) => {
            format!(" through {}", hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    };
    let about = format!("{}{way}", target.address());
    match target.warnings() {
        warnings if warnings.is_empty() => examination.ok(Duration::ZERO, about),
        warnings => examination.add(Verdict::Warning, None, about, Some(warnings.join("; "))),
    }
    Ok(Stage::Complete)
}

/// Resolves the name, connects and reads the greeting, in the connection's way but step by step.
pub(super) async fn reach(examination: &mut Examination<'_>) -> Result<Stage, host::Error> {
    if examination.target.ssh.proxy != Proxy::None {
        return Ok(Stage::Skips("a jump host or a ProxyCommand makes this connection"));
    }
    steps(examination).await?;
    Ok(Stage::Complete)
}

async fn steps(examination: &mut Examination<'_>) -> Result<(), ssh::Error> {
    let ssh = &examination.target.ssh;
    let (host, port) = (&ssh.host_name, ssh.port);
    let timeout = |step| move |_| ssh::Error::Timeout { host: host.clone(), step, limit: LIMIT };
    let begun = Instant::now();
    let resolving = tokio::time::timeout(LIMIT, tokio::net::lookup_host((host.as_str(), port))).await;
    let found = resolving
        .map_err(timeout(Phase::Resolution))?
        .map_err(|source| ssh::Error::Resolve { host: host.clone(), source })?;
    let addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
    examination.ok(begun.elapsed(), addresses.join(", "));

    let begun = Instant::now();
    let connecting =
        tokio::time::timeout(examination.target.connect_timeout, TcpStream::connect((host.as_str(), port)));
    let stream = connecting.await.map_err(timeout(Phase::Tcp))?.map_err(|source| ssh::Error::Connect {
        host: host.clone(),
        port,
        source,
    })?;
    let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    examination.ok(begun.elapsed(), peer);

    let begun = Instant::now();
    let mut stream = BufReader::new(stream.take(MAX_GREETING));
    let greeting = async {
        // Lines before the greeting are allowed (RFC 4253 section 4.2).
        let mut said = Vec::new();
        loop {
            let from = said.len();
            match stream.read_until(b'\n', &mut said).await {
                Ok(1..) if said[from..].starts_with(b"SSH-") => return Ok(text::shown_bytes(&said[from..])),
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(said),
            }
        }
    };
    match tokio::time::timeout(LIMIT, greeting).await {
        Ok(Ok(line)) => examination.ok(begun.elapsed(), shown(&line)),
        Ok(Err(said)) => return Err(ssh::no_greeting(host, port, &said)),
        // Some servers wait for the client to speak first; the SSH connection will identify them.
        Err(_) => {
            let silent = "nothing: it waits for the client to speak first, which an SSH server does not do";
            examination.add(Verdict::Warning, Some(begun.elapsed()), silent, None);
        }
    }
    Ok(())
}

/// A server's greeting, safe for a terminal.
fn shown(line: &str) -> String {
    text::shown_at_most(line, MAX_LINE)
}
