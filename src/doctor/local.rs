//! The local end: may a tunnel be there, and is one?

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Check, Verdict};
use crate::config::{LocalEndpoint, Target, runtime_dir};

/// Looks at the local endpoint and the directory it is in.
pub(super) fn check(target: &Target) -> Check {
    let (verdict, detail, remedy) = match &target.local {
        LocalEndpoint::Unix(path) => unix(path),
        LocalEndpoint::Tcp(address) => tcp(*address),
    };
    Check { id: "local", verdict, ms: None, detail, remedy }
}

type Found = (Verdict, String, Option<String>);

fn unix(path: &Path) -> Found {
    // (Where the default is not safe, there is no target to be looked at either.)
    if let Err(error) = runtime_dir() {
        return (Verdict::Failed, error.to_string(), error.hint());
    }
    let shown = path.display();
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return (Verdict::Ok, format!("{shown} is free"), None);
    };
    if !meta.file_type().is_socket() {
        let remedy = format!("remove {shown}, or choose another path with --local unix:PATH");
        return (Verdict::Failed, format!("{shown} is there, and no socket"), Some(remedy));
    }
    let me = rustix::process::getuid().as_raw();
    if meta.uid() != me {
        let detail = format!("{shown} belongs to uid {}, not to you (uid {me})", meta.uid());
        return (Verdict::Failed, detail, Some("choose another path with --local unix:PATH".into()));
    }
    if meta.mode() & 0o077 != 0 {
        let detail = format!("others may use {shown} (mode {:04o})", meta.mode() & 0o7777);
        return (Verdict::Warning, detail, Some(format!("chmod 600 {shown}")));
    }
    match UnixStream::connect(path) {
        Ok(_) => (Verdict::Ok, format!("{shown} is in use, for you alone: the tunnel is up"), None),
        Err(_) => (Verdict::Ok, format!("{shown} was left over; the next `up` replaces it"), None),
    }
}

fn tcp(address: std::net::SocketAddr) -> Found {
    if address.port() == 0 {
        return (Verdict::Ok, "any free port".into(), None);
    }
    match std::net::TcpListener::bind(address) {
        Ok(_) => (Verdict::Ok, format!("{address} is free"), None),
        Err(e) => (
            Verdict::Warning,
            format!("{address}: {e}"),
            Some("fine if this tunnel is up; else choose another port with --local tcp:ADDRESS:PORT".into()),
        ),
    }
}
