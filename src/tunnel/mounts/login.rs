//! Commands of the login on the host, each over a flow of its own.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::host::{Ended, Run, Stream};
use crate::shell_word::quoted;
use crate::tunnel::dial::{Dial, Purpose};

/// Bytes behind a command's output: how it ended.
const TRAILER: usize = 1024;
/// Its first word.
const MARK: &[u8] = b"dtunnel-end ";
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Longest answer to a question, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Runs commands on the tunnel's host.
#[derive(Clone)]
pub(super) struct Login {
    dial: Arc<dyn Dial>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

/// `script`, and behind its output in [`TRAILER`] bytes its status and the end of its standard error.
fn wrapped(script: &str) -> String {
    format!(
        "LC_ALL=C; export LC_ALL; x={}; exec 4>&1; e=$( (eval \"$x\") 2>&1 >&4 4>&-; echo \" $?\"); s=${{e##* }}; \
         e=$(printf %s \"${{e% *}}\" | tail -c 900); printf '%-{TRAILER}.{TRAILER}s' \"dtunnel-end $s $e\"",
        quoted(script)
    )
}

/// Reads a trailer.
fn ended(trailer: &[u8]) -> Option<Ended> {
    let text = String::from_utf8_lossy(trailer.strip_prefix(MARK)?).into_owned();
    let (status, stderr) = text.split_once(' ')?;
    Some(Ended { status: status.parse().ok(), stderr: stderr.trim_end().to_owned() })
}

impl Login {
    /// By flows that `dial` opens.
    pub(super) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial }
    }

    /// Opens flows to its host.
    pub(super) fn dial(&self) -> Arc<dyn Dial> {
        self.dial.clone()
    }

    /// What a command without input says.
    ///
    /// # Errors
    /// The connection's; the command's, with what it said of it.
    pub(super) async fn ask(&self, script: &str) -> io::Result<String> {
        let (ours, theirs) = tokio::io::duplex(PIECE);
        let mut answer = Vec::new();
        let (ended, read) = tokio::join!(self.run(script, tokio::io::empty(), theirs), async {
            ours.take(MAX_ANSWER).read_to_end(&mut answer).await
        });
        let ended = ended?;
        read?;
        match ended.status {
            Some(0) => Ok(String::from_utf8_lossy(&answer).into_owned()),
            _ => Err(io::Error::other(ended.stderr)),
        }
    }
}

impl Run for Login {
    async fn run(
        &self,
        script: &str,
        mut stdin: impl AsyncRead + Send + Unpin,
        mut stdout: impl AsyncWrite + Send + Unpin,
    ) -> io::Result<Ended> {
        let stream = self.dial.clone().dial(Purpose::script(&wrapped(script)))?;
        let (mut read, mut write) = tokio::io::split(stream);
        let sending = async {
            // A command that ends early reads no more; how it ended matters.
            if tokio::io::copy(&mut stdin, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
            std::future::pending().await
        };
        let receiving = async {
            let mut kept = bytes::BytesMut::with_capacity(PIECE + TRAILER);
            while read.read_buf(&mut kept).await? > 0 {
                if kept.len() > TRAILER {
                    let passes = kept.len() - TRAILER;
                    stdout.write_all(&kept.split_to(passes)).await?;
                }
            }
            stdout.shutdown().await?;
            ended(&kept).ok_or_else(|| {
                let why = "the command on the host was cut off, or the login may run none";
                io::Error::new(io::ErrorKind::ConnectionReset, why)
            })
        };
        tokio::select! {
            ended = receiving => ended,
            never = sending => never,
        }
    }

    async fn sftp(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.dial.clone().dial(Purpose::sftp())?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_script_keeps_its_input_and_output_and_tells_how_it_ended() {
        for (script, output, status, stderr) in [
            ("cat", "hello", 0, ""),
            ("cat; exit 3", "hello", 3, ""),
            ("echo no >&2; echo 'it'\\''s\n' ; exit 1", "it's\n\n", 1, "no"),
            ("printf 'a b\\n c ' >&2", "", 0, "a b\n c"),
            ("case x in x) echo y;; esac; echo $(cat) | cat", "y\nhello\n", 0, ""),
            ("head -c 100000 /dev/zero | tr '\\0' e >&2", "", 0, &"e".repeat(900)),
        ] {
            let mut child = Command::new("sh")
                .args(["-c", &wrapped(script)])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("sh");
            // Some do not read it, and may have ended.
            let _ = child.stdin.take().expect("piped").write_all(b"hello");
            let all = child.wait_with_output().expect("ended").stdout;
            let (said, trailer) = all.split_at(all.len() - TRAILER);
            assert_eq!(String::from_utf8_lossy(said), output, "{script}");
            assert_eq!(ended(trailer), Some(Ended { status: Some(status), stderr: stderr.into() }), "{script}");
        }
        assert_eq!(ended(&[b' '; TRAILER]), None);
    }
}
