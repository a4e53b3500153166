//! Bodies of create, commit and exec.

use std::collections::BTreeMap;

use super::host_config::{HostConfig, Runtime};
use super::networks::{Endpoint, MaybeNetwork};
use super::text::{Member, Nothing, Text, Words, body, dropped, nothing, only, rules};
use super::{Ground, Reference};

rules! {
    /// A path in the container. Podman parses the keys like arguments of `-v`.
    VolumePath = |text| only(text.starts_with('/') && !text.contains([':', ',']) && !text.contains(char::is_control));
}

body! {
    /// `POST /containers/create`: Moby's Config and the fields next to it. Without a HostConfig, Engines up to 26 read
    /// its fields here as well; of those, only the runtime is accepted.
    Create {
        hostname: String,
        domainname: String,
        user: String,
        attach_stdin: bool,
        attach_stdout: bool,
        attach_stderr: bool,
        exposed_ports: BTreeMap<String, Member>,
        tty: bool,
        open_stdin: bool,
        stdin_once: bool,
        env: Vec<String>,
        cmd: Words,
        healthcheck: Healthcheck,
        args_escaped: bool,
        image: String,
        volumes: BTreeMap<Text<VolumePath>, Member>,
        working_dir: String,
        entrypoint: Words,
        network_disabled: bool,
        mac_address: String,
        on_build: Vec<String>,
        labels: BTreeMap<String, String>,
        stop_signal: String,
        stop_timeout: i64,
        shell: Words,
        host_config: HostConfig,
        networking_config: Networking,
        // docker-py's own API writes it here, where Engines up to 26 read it if there is no HostConfig.
        runtime: Runtime,
        // dockerode repeats the query's parameters here, for create and commit.
        #[serde(deserialize_with = "dropped")]
        name = "name": Nothing,
        #[serde(deserialize_with = "dropped")]
        platform = "platform": Nothing,
        #[serde(deserialize_with = "dropped")]
        author = "author": Nothing,
        #[serde(deserialize_with = "dropped")]
        changes = "changes": Nothing,
        #[serde(deserialize_with = "dropped")]
        comment = "comment": Nothing,
        #[serde(deserialize_with = "dropped")]
        container = "container": Nothing,
        #[serde(deserialize_with = "dropped")]
        pause = "pause": Nothing,
        #[serde(deserialize_with = "dropped")]
        repo = "repo": Nothing,
        #[serde(deserialize_with = "dropped")]
        tag = "tag": Nothing,
    }

    /// How the Engine checks a container's health.
    Healthcheck {
        test: Vec<String>,
        interval: i64,
        timeout: i64,
        start_period: i64,
        start_interval: i64,
        retries: i64,
    }

    /// The networks of a new container, by name or id.
    Networking {
        endpoints_config: BTreeMap<Text<MaybeNetwork>, Endpoint>,
    }

    /// `POST /containers/{}/exec`.
    Exec {
        user: String,
        #[serde(deserialize_with = "nothing")]
        privileged: Nothing,
        tty: bool,
        console_size: [u32; 2],
        attach_stdin: bool,
        attach_stderr: bool,
        attach_stdout: bool,
        detach_keys: String,
        // docker-py's spelling; the Engine accepts any case.
        keys_of_docker_py = "detachKeys": String,
        env: Vec<String>,
        working_dir: String,
        cmd: Words,
        // From Engines before 1.42, without effect; docker-py sends the second.
        #[serde(deserialize_with = "dropped")]
        detach: Nothing,
        #[serde(deserialize_with = "dropped")]
        container: Nothing,
    }

    /// `POST /exec/{}/start`.
    ExecStart {
        detach: bool,
        tty: bool,
        console_size: [u32; 2],
        // Internal fields of dockerode.
        #[serde(deserialize_with = "dropped")]
        hijack = "hijack": Nothing,
        #[serde(deserialize_with = "dropped")]
        stdin = "stdin": Nothing,
    }
}

impl Exec {
    /// Moves each field to one spelling.
    ///
    /// # Errors
    /// A field occurs in two spellings.
    pub(super) fn in_one_spelling(mut self) -> Result<Self, String> {
        let other = self.keys_of_docker_py.take();
        match (&self.detach_keys, other) {
            (Some(_), Some(_)) => return Err("DetachKeys and detachKeys are the same".into()),
            (None, other) => self.detach_keys = other,
            (Some(_), None) => {}
        }
        Ok(self)
    }
}

impl Create {
    /// Judges fields that depend on each other, and sets those that must not be left to the Engine's default.
    ///
    /// # Errors
    /// What is not allowed.
    pub(super) fn judge(&mut self, ground: &Ground<'_>) -> Result<(), String> {
        // Without a HostConfig, Engines up to 26 read its fields from the top level; otherwise they don't.
        let runtime = self.runtime.take();
        self.host_config.get_or_insert_with(|| HostConfig::with_runtime(runtime)).judge(ground)?;
        for (network, endpoint) in self.networking_config.iter().flat_map(|n| &n.endpoints_config).flatten() {
            if &**network == "host" {
                return Err("NetworkingConfig.EndpointsConfig.host is not allowed: the host's network".into());
            }
            endpoint.judge().map_err(|e| format!("NetworkingConfig.EndpointsConfig.{}.{e}", &**network))?;
        }
        Ok(())
    }

    /// The objects that must be checked at the Engine before this body can be sent.
    pub(in crate::tunnel::guard) fn references(&mut self) -> Vec<Reference<'_>> {
        self.host_config.as_mut().map(HostConfig::references).unwrap_or_default()
    }

    /// See [`HostConfig::below`].
    pub(in crate::tunnel::guard) fn below(&self, ground: &Ground<'_>) -> Vec<String> {
        self.host_config.iter().flat_map(|host| host.below(ground)).map(str::to_owned).collect()
    }

    /// Checks that a commit's body holds only a configuration.
    ///
    /// # Errors
    /// It holds more.
    pub(super) fn is_config_alone(&self) -> Result<(), String> {
        match (&self.host_config, &self.networking_config, &self.runtime) {
            (None, None, None) => Ok(()),
            _ => Err("HostConfig, NetworkingConfig and Runtime are not allowed in a commit".into()),
        }
    }
}
