//! HostConfig.Mounts, and volumes with driver options.

use std::collections::BTreeMap;

use super::Ground;
use super::binds::Use;
use super::json::shown;
use super::text::{Nothing, Text, body, is_made_of, is_name, is_one_line, nothing, one_of, only, rules};

body! {
    /// An item of HostConfig.Mounts.
    Mount {
        kind = "Type": Text<Kind>,
        source: String,
        target: String,
        read_only: bool,
        consistency: Text<Consistency>,
        bind_options: BindOptions,
        volume_options: VolumeOptions,
        image_options: ImageOptions,
        tmpfs_options: TmpfsOptions,
        #[serde(deserialize_with = "nothing")]
        cluster_options: Nothing,
    }

    /// How a host directory is mounted.
    BindOptions {
        propagation: Text<Propagation>,
        non_recursive: bool,
        create_mountpoint: bool,
        read_only_non_recursive: bool,
        read_only_force_recursive: bool,
    }

    /// How a volume is mounted, and created if missing.
    VolumeOptions {
        no_copy: bool,
        labels: BTreeMap<String, String>,
        subpath: String,
        driver_config: DriverConfig,
    }

    /// How an image is mounted.
    ImageOptions {
        subpath: String,
    }

    /// How a tmpfs is mounted.
    TmpfsOptions {
        size_bytes: i64,
        mode: u32,
        options: Vec<Vec<String>>,
    }

    /// A volume's driver.
    DriverConfig {
        name: Text<Local>,
        options: Options,
    }

    /// `POST /volumes/create`.
    Volume {
        name: Text<MaybeVolume>,
        driver: Text<Local>,
        driver_opts: Options,
        labels: BTreeMap<String, String>,
        #[serde(deserialize_with = "nothing")]
        cluster_volume_spec: Nothing,
    }
    /// Options of the driver `local`, which performs any mount as root.
    Options {
        kind = "type": String,
        words = "o": String,
        device = "device": String,
        size = "size": Text<Plain>,
    }
}

rules! {
    Kind = |text| one_of(text, &["bind", "volume", "tmpfs", "image"]);
    Consistency = |text| one_of(text, &["", "consistent", "cached", "delegated", "default"]);
    // Without `shared` and `rshared`, which propagate mounts out of the container.
    Propagation = |text| one_of(text, &["", "private", "rprivate", "slave", "rslave"]);
    Local = |text| one_of(text, &["", "local"]);
    MaybeVolume = |text| only(text.is_empty() || is_name(text));
    Plain = |text| only(is_made_of(text, "."));
    /// The options of a tmpfs.
    TmpfsWords = |text| match text.split(',').find(|word| !is_tmpfs_word(word)) {
        Some(word) => Err(format!("is not allowed: the option {}", shown(word))),
        None => Ok(()),
    };
}

/// Options that every file system accepts, without those that bind, move, remount or propagate mounts.
const COMMON: &[&str] = &[
    "",
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "relatime",
    "ro",
    "rprivate",
    "rw",
    "strictatime",
    "suid",
    "sync",
];

/// Options of tmpfs that have a value.
const TMPFS: &[&str] = &["gid", "huge", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"];

/// Options of NFS (nfs(5)). Of `sec` only `sys` is allowed: other values would use the host's keys.
const NFS: &[&str] = &[
    "ac",
    "acdirmax",
    "acdirmin",
    "acregmax",
    "acregmin",
    "actimeo",
    "addr",
    "bg",
    "clientaddr",
    "cto",
    "fg",
    "fsc",
    "hard",
    "intr",
    "local_lock",
    "lock",
    "lookupcache",
    "minorversion",
    "mountport",
    "mountproto",
    "mountvers",
    "nconnect",
    "nfsvers",
    "noac",
    "noacl",
    "nocto",
    "nofsc",
    "nointr",
    "nolock",
    "noresvport",
    "nosharecache",
    "port",
    "proto",
    "rdirplus",
    "nordirplus",
    "resvport",
    "retrans",
    "retry",
    "rsize",
    "sharecache",
    "soft",
    "softerr",
    "softreval",
    "tcp",
    "timeo",
    "udp",
    "v3",
    "v4",
    "vers",
    "wsize",
];

/// Options of CIFS (mount.cifs(8)). Without `credentials`, a file on the host, and without Kerberos and `multiuser`,
/// which would use the host's keys.
const CIFS: &[&str] = &[
    "actimeo",
    "addr",
    "cache",
    "cifsacl",
    "dir_mode",
    "domain",
    "dom",
    "echo_interval",
    "file_mode",
    "forcegid",
    "forceuid",
    "gid",
    "guest",
    "hard",
    "iocharset",
    "ip",
    "mapchars",
    "mapposix",
    "mfsymlinks",
    "nobrl",
    "nodfs",
    "nohandlecache",
    "noperm",
    "noserverino",
    "nounix",
    "pass",
    "password",
    "perm",
    "persistenthandles",
    "port",
    "rsize",
    "seal",
    "serverino",
    "sfu",
    "sign",
    "soft",
    "uid",
    "unix",
    "user",
    "username",
    "vers",
    "wsize",
];

fn is_tmpfs_word(word: &str) -> bool {
    COMMON.contains(&word)
        || word.split_once('=').is_some_and(|(name, value)| TMPFS.contains(&name) && is_made_of(value, "%:.-"))
}

/// Why a bind below an entry is refused.
const BELOW: &str = "is below an entry of allowed_binds that ends in `/`";

impl Mount {
    /// A read-only mount of a directory below an entry of `allowed_binds`.
    pub(super) fn of_below(source: &str, target: &str) -> Self {
        let (source, target) = (Some(source.to_owned()), Some(target.to_owned()));
        Self { kind: Text::new("bind"), source, target, read_only: Some(true), ..Self::default() }
    }

    pub(super) fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    pub(super) fn is_below(&self, ground: &Ground<'_>) -> bool {
        self.kind.as_deref() == Some("bind") && ground.is_below(self.source.as_deref().unwrap_or_default())
    }

    /// Leaves out the file systems mounted below a directory that is read-only because it is below an entry: a
    /// read-only bind leaves them writable (runc, before Engine 25 and with an API before 1.44), and a container that
    /// can write there could create a link.
    ///
    /// # Errors
    /// Why that is not possible, beginning with the field.
    pub(super) fn leave_out_mounts(&mut self, ground: &Ground<'_>) -> Result<(), String> {
        if !self.is_below(ground) {
            return Ok(());
        }
        if ground.brings_mounts {
            return Err(format!(".Source {BELOW}, which takes an API of 1.40 or later"));
        }
        let options = self.bind_options.get_or_insert_default();
        if options.propagation.as_deref().is_some_and(|propagation| propagation.ends_with("slave")) {
            return Err(format!(".BindOptions.Propagation slave is not allowed: its source {BELOW}"));
        }
        if options.create_mountpoint == Some(true) {
            return Err(format!(".BindOptions.CreateMountpoint writes on the host: its source {BELOW}"));
        }
        (options.non_recursive, options.read_only_force_recursive) = (Some(true), None);
        Ok(())
    }

    /// Whether it mounts this directory without the mounts below it.
    pub(super) fn leaves_out_mounts(&self, source: &str, target: &str) -> bool {
        let same = |one: &Option<String>, two: &str| {
            one.as_deref().is_some_and(|one| one.trim_end_matches('/') == two.trim_end_matches('/'))
        };
        let options = self.bind_options.as_ref();
        options.and_then(|options| options.non_recursive) == Some(true)
            && same(&self.source, source)
            && same(&self.target, target)
    }

    /// The name of the volume; None for other mounts.
    pub(super) fn volume(&self) -> Option<&str> {
        let is_volume = self.kind.as_deref() == Some("volume");
        self.source.as_deref().filter(|name| is_volume && !name.is_empty())
    }

    /// # Errors
    /// Why the mount is not allowed, beginning with the field.
    pub(super) fn judge(&self, ground: &Ground<'_>) -> Result<(), String> {
        let source = self.source.as_deref().unwrap_or_default();
        let kind = self.kind.as_deref().ok_or(".Type is missing")?;
        match kind {
            "bind" => {
                let options = self.bind_options.as_ref();
                // `read_only_non_recursive` leaves the mounts below it writable.
                let partly = options.is_some_and(|options| options.read_only_non_recursive == Some(true));
                let wanted = if self.read_only == Some(true) && !partly { Use::Read } else { Use::Write };
                ground.may_bind(source, wanted).map_err(|e| format!(".Source: {e}"))?;
            }
            "volume" if !(source.is_empty() || is_name(source)) => {
                return Err(format!(".Source {} is no volume", shown(source)));
            }
            _ => {}
        }
        for option in self.tmpfs_options.iter().flat_map(|tmpfs| &tmpfs.options).flatten() {
            // A flag, or a name and a value.
            if option.len() > 2 || !is_tmpfs_word(&option.join("=")) {
                return Err(format!(".TmpfsOptions.Options {} is not allowed", shown(&option.join("="))));
            }
        }
        if let Some(options) = self.volume_options.as_ref().and_then(|v| v.driver_config.as_ref()?.options.as_ref()) {
            options.judge(ground).map_err(|e| format!(".VolumeOptions.DriverConfig.Options.{e}"))?;
        }
        Ok(())
    }
}

impl Volume {
    /// # Errors
    /// What is not allowed.
    pub(super) fn judge(&self, ground: &Ground<'_>) -> Result<(), String> {
        match &self.driver_opts {
            Some(options) => options.judge(ground).map_err(|e| format!("DriverOpts.{e}")),
            None => Ok(()),
        }
    }
}

impl Options {
    /// With a bind in `o`, `type` has no effect (mount(2): the type is ignored). So all options must
    /// be in the list for their type.
    pub(super) fn judge(&self, ground: &Ground<'_>) -> Result<(), String> {
        let kind = self.kind.as_deref().unwrap_or_default();
        let device = self.device.as_deref().unwrap_or_default();
        let words: Vec<&str> = self.words.iter().flat_map(|words| words.split(',')).collect();
        let (known, with_value): (&[&str], bool) = match kind {
            "" | "none" | "bind" => (&["bind", "rbind"], false),
            "tmpfs" => (TMPFS, true),
            "nfs" | "nfs4" => (NFS, true),
            "cifs" => (CIFS, true),
            _ => return Err(format!("type {} is not allowed", shown(kind))),
        };
        for word in &words {
            let (name, value) = word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
            let fits = match value {
                None => COMMON.contains(word) || known.contains(word),
                // The value is the client's own secret, or a name.
                Some(value) if matches!(name, "pass" | "password" | "user" | "username" | "domain" | "dom") => {
                    kind == "cifs" && is_one_line(value)
                }
                Some("sys") if name == "sec" => kind.starts_with("nfs"),
                Some("ntlmssp" | "ntlmsspi" | "ntlmv2" | "ntlmv2i" | "none") if name == "sec" => kind == "cifs",
                Some(value) => with_value && known.contains(&name) && is_made_of(value, "._-:[]%"),
            };
            if !fits {
                // The value is left out, since it may be a secret.
                return Err(format!("o with the option {} is not allowed for the type {}", shown(name), named(kind)));
            }
        }
        if !is_one_line(device) {
            return Err("device is not allowed: it has control characters in it".into());
        }
        match kind {
            "" | "none" | "bind" if device.is_empty() => Ok(()),
            "" | "none" | "bind" => ground.may_bind(device, Use::Write).map_err(|e| format!("device: {e}")),
            "tmpfs" if is_made_of(device, "_-") => Ok(()),
            "nfs" | "nfs4" if !device.starts_with('/') && device.contains(":/") => Ok(()),
            "cifs" if device.starts_with("//") => Ok(()),
            _ => Err(format!("device {} is not allowed for the type {kind}", shown(device))),
        }
    }
}

fn named(kind: &str) -> &str {
    if kind.is_empty() { "none" } else { kind }
}
