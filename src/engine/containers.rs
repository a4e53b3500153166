//! Running containers and their published ports.

use std::net::IpAddr;

use serde::Deserialize;

use crate::text;

/// Limit of a container's name, in characters; the Engine's own are shorter.
const MAX_NAME: usize = 255;

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// Its name, without the Engine's leading slash, safe for a terminal.
    pub name: String,
    /// Whether it uses the host's network.
    pub host_network: bool,
    /// Its published ports; each address once.
    pub published: Vec<Published>,
}

/// A port of a container, published on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Published {
    pub address: IpAddr,
    pub port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A container, running or not, and what it mounts of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounting {
    pub id: String,
    /// Its name, as of a [`Container`].
    pub name: String,
    pub is_running: bool,
    pub binds: Vec<Binding>,
}

/// A path of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The path on the host.
    pub source: String,
    /// Whether the container may only read it.
    pub is_read_only: bool,
}

/// A container in the Engine's list, as far as its mounts are concerned.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedMounting {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    mounts: Option<Vec<ListedMount>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedMount {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default)]
    source: String,
    #[serde(default, rename = "RW")]
    is_writable: bool,
}

impl From<ListedMounting> for Mounting {
    fn from(listed: ListedMounting) -> Self {
        let binds = listed.mounts.unwrap_or_default().into_iter().filter(|mount| mount.kind == "bind");
        Self {
            name: name_of(&listed.id, listed.names),
            id: listed.id,
            // Paused ones have files open, and may go on.
            is_running: matches!(listed.state.as_str(), "running" | "paused" | "restarting" | "removing"),
            binds: binds.map(|mount| Binding { source: mount.source, is_read_only: !mount.is_writable }).collect(),
        }
    }
}

/// Its own name of a container's, or the beginning of its id, safe for a terminal.
fn name_of(id: &str, names: Option<Vec<String>>) -> String {
    // Links give a container additional names, which contain a slash.
    let names = names.unwrap_or_default();
    let own = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    let name = own.map_or_else(|| id.chars().take(12).collect(), str::to_owned);
    text::shown_at_most(&name, MAX_NAME)
}

/// A container in the Engine's list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    id: String,
    // `null` and a missing list mean the same here.
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    ports: Option<Vec<ListedPort>>,
    #[serde(default)]
    host_config: Option<ListedHostConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedHostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPort {
    #[serde(default, rename = "IP")]
    ip: String,
    private_port: u16,
    #[serde(default)]
    public_port: u16,
    #[serde(default, rename = "Type")]
    protocol: String,
}

impl From<Listed> for Container {
    fn from(listed: Listed) -> Self {
        let name = name_of(&listed.id, listed.names);
        let mut published: Vec<Published> =
            listed.ports.unwrap_or_default().into_iter().filter_map(ListedPort::published).collect();
        published.sort();
        published.dedup();
        let host_network = listed.host_config.unwrap_or_default().network_mode == "host";
        Self { id: listed.id, name, host_network, published }
    }
}

/// A service in the swarm's list.
#[derive(Debug, Deserialize)]
pub(super) struct ListedService {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default, rename = "Spec")]
    spec: Option<ServiceSpec>,
    #[serde(default, rename = "Endpoint")]
    endpoint: Option<ServiceEndpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceSpec {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceEndpoint {
    #[serde(default)]
    ports: Option<Vec<ServicePort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServicePort {
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    target_port: u16,
    #[serde(default)]
    published_port: u16,
    #[serde(default)]
    publish_mode: String,
}

impl From<ListedService> for Container {
    /// Its ports of the routing mesh, which each node publishes on all its addresses. Those in `host` mode are published by
    /// the containers of its tasks.
    fn from(listed: ListedService) -> Self {
        let name = listed.spec.map(|spec| spec.name).unwrap_or_default();
        let port = |port: ServicePort| {
            let is_of_mesh = port.publish_mode != "host";
            let listed = ListedPort {
                ip: String::new(),
                private_port: port.target_port,
                public_port: port.published_port,
                protocol: port.protocol,
            };
            listed.published().filter(|_| is_of_mesh)
        };
        let ports = listed.endpoint.unwrap_or_default().ports.unwrap_or_default();
        let published = ports.into_iter().filter_map(port).collect();
        Self { id: listed.id, name: text::shown_at_most(&name, MAX_NAME), host_network: false, published }
    }
}

impl ListedPort {
    /// None if the port is only exposed.
    fn published(self) -> Option<Published> {
        // Podman omits the address for all addresses.
        let ip = if self.ip.is_empty() { "0.0.0.0" } else { &self.ip };
        let address = ip.parse().ok()?;
        if !matches!(self.protocol.as_str(), "tcp" | "udp" | "sctp") {
            return None;
        }
        let Self { public_port: port, private_port: container_port, protocol, .. } = self;
        (port != 0).then_some(Published { address, port, container_port, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whatever_is_missing() {
        let text = r#"[
            {"Id":"0123456789abcdef","Names":["/a/b","/web"],"HostConfig":{"NetworkMode":"default"},"Ports":[
                {"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                {"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                {"PrivatePort":81,"Type":"tcp"},
                {"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}]},
            {"Id":"fedcba9876543210","Names":null,"HostConfig":{"NetworkMode":"host"},"Ports":null},
            {"Id":"1"}]"#;
        let listed: Vec<Listed> = serde_json::from_str(text).expect("a list");
        let containers: Vec<Container> = listed.into_iter().map(Container::from).collect();
        assert_eq!(containers[0].name, "web");
        let addresses: Vec<String> = containers[0].published.iter().map(|p| p.address.to_string()).collect();
        assert_eq!(addresses, ["0.0.0.0", "::"]);
        assert_eq!((containers[1].name.as_str(), containers[1].host_network), ("fedcba987654", true));
        assert_eq!((containers[2].name.as_str(), containers[2].host_network), ("1", false));
    }

    #[test]
    fn a_service_has_the_ports_of_the_mesh() {
        let text = r#"[
            {"ID":"x1","Spec":{"Name":"web"},"Endpoint":{"Ports":[
                {"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},
                {"Protocol":"tcp","TargetPort":81,"PublishedPort":8081,"PublishMode":"host"},
                {"Protocol":"tcp","TargetPort":82,"PublishMode":"ingress"}]}},
            {"ID":"x2","Spec":{"Name":"worker"},"Endpoint":{"Spec":{}}},
            {"ID":"x3"}]"#;
        let listed: Vec<ListedService> = serde_json::from_str(text).expect("a list");
        let services: Vec<Container> = listed.into_iter().map(Container::from).collect();
        let ports: Vec<u16> = services[0].published.iter().map(|published| published.port).collect();
        assert_eq!((services[0].name.as_str(), ports), ("web", vec![8080]));
        assert!(services[1].published.is_empty() && services[2].published.is_empty());
    }
}
