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
        // Links give a container additional names, which contain a slash.
        let names = listed.names.unwrap_or_default();
        let own = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
        let name = own.map_or_else(|| listed.id.chars().take(12).collect(), str::to_owned);
        let name = text::shown_at_most(&name, MAX_NAME);
        let mut published: Vec<Published> =
            listed.ports.unwrap_or_default().into_iter().filter_map(ListedPort::published).collect();
        published.sort();
        published.dedup();
        let host_network = listed.host_config.unwrap_or_default().network_mode == "host";
        Self { id: listed.id, name, host_network, published }
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
}
