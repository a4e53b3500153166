//! Bodies about networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::json::shown;
use super::security::Sysctl;
use super::text::{MaybeName, Nothing, Rule, Text, body, is_made_of, is_network_name, nothing, one_of, only, rules};

body! {
    /// `POST /networks/create`.
    Network {
        name: Text<Name>,
        check_duplicate: bool,
        driver: Text<Driver>,
        scope: Text<Scope>,
        enable_ipv4 = "EnableIPv4": bool,
        // Makes the host forward IPv6 on all its interfaces, and ignore router advertisements.
        #[serde(deserialize_with = "nothing")]
        enable_ipv6 = "EnableIPv6": Nothing,
        ipam = "IPAM": Ipam,
        internal: bool,
        attachable: bool,
        #[serde(deserialize_with = "nothing")]
        ingress: Nothing,
        // A network that takes its options from another one, or that only provides them.
        #[serde(deserialize_with = "nothing")]
        config_only: Nothing,
        config_from: ConfigFrom,
        options: BTreeMap<Text<NetworkOption>, String>,
        labels: BTreeMap<String, String>,
    }

    /// Clients send it without a name.
    ConfigFrom {
        #[serde(deserialize_with = "nothing")]
        network: Nothing,
    }

    /// A network's address ranges.
    Ipam {
        driver: Text<IpamDriver>,
        #[serde(deserialize_with = "nothing")]
        options: Nothing,
        config: Vec<IpamConfig>,
    }

    /// An address range. The bridge gets an address in it and the host a route to it, so a client's choice could divert
    /// the host's own traffic. By default the Engine picks a free range.
    IpamConfig {
        #[serde(deserialize_with = "nothing")]
        subnet: Nothing,
        #[serde(deserialize_with = "nothing")]
        ip_range = "IPRange": Nothing,
        #[serde(deserialize_with = "nothing")]
        gateway: Nothing,
        #[serde(deserialize_with = "nothing")]
        auxiliary_addresses: Nothing,
    }

    /// `POST /networks/{}/connect`.
    Connect {
        container: Text<MaybeName>,
        endpoint_config: Endpoint,
    }

    /// `POST /networks/{}/disconnect`.
    Disconnect {
        container: Text<MaybeName>,
        force: bool,
    }

    /// A container's connection to a network. Fields shown by inspect are accepted.
    Endpoint {
        ipam_config = "IPAMConfig": EndpointIpam,
        links: Vec<String>,
        aliases: Vec<String>,
        driver_opts: BTreeMap<String, String>,
        gw_priority: i64,
        network_id = "NetworkID": Text<MaybeNetwork>,
        endpoint_id = "EndpointID": Text<MaybeName>,
        gateway: Text<Address>,
        ip_address = "IPAddress": Text<Address>,
        mac_address: String,
        ip_prefix_len = "IPPrefixLen": i64,
        ipv6_gateway = "IPv6Gateway": Text<Address>,
        global_ipv6_address = "GlobalIPv6Address": Text<Address>,
        global_ipv6_prefix_len = "GlobalIPv6PrefixLen": i64,
        dns_names = "DNSNames": Vec<String>,
    }

    /// Requested addresses.
    EndpointIpam {
        ipv4_address = "IPv4Address": Text<Address>,
        ipv6_address = "IPv6Address": Text<Address>,
        link_local_ips = "LinkLocalIPs": Vec<Text<Address>>,
    }
}

rules! {
    Name = |text| only(is_network_name(text) && text != "host");
    /// A network's name or id, or empty.
    MaybeNetwork = |text| only(text.is_empty() || is_network_name(text));
    // `macvlan` and `ipvlan` use an interface of the host. Other names are programs on the host, and a path may
    // name the client's own program.
    Driver = |text| one_of(text, &["", "bridge", "overlay", "null"]);
    IpamDriver = |text| one_of(text, &["", "default"]);
    Scope = |text| one_of(text, &["", "local", "swarm"]);
    Address = |text| only(text.is_empty() || text.split('/').next().is_some_and(|a| a.parse::<IpAddr>().is_ok()));
    NetworkOption = |text| one_of(text, NETWORK_OPTIONS);
}

/// Options without `com.docker.network.bridge.name`, which takes over an interface of the host and deletes it with the
/// network, and without options that open the host to others.
const NETWORK_OPTIONS: &[&str] = &[
    "com.docker.network.bridge.default_bridge_disabled",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.container_iface_prefix",
    "com.docker.network.driver.mtu",
    "com.docker.network.enable_ipv4",
    "encrypted",
];

impl Network {
    /// # Errors
    /// What is not allowed.
    pub(super) fn judge(&self) -> Result<(), String> {
        for (name, value) in self.options.iter().flatten() {
            let fits = match &**name {
                "com.docker.network.container_iface_prefix" => value.len() <= 8 && is_made_of(value, ""),
                "com.docker.network.bridge.gateway_mode_ipv4" | "com.docker.network.bridge.gateway_mode_ipv6" => {
                    ["nat", "routed", "isolated"].contains(&value.as_str())
                }
                _ => is_made_of(value, ".:"),
            };
            if !fits {
                return Err(format!("Options.{} {} is not allowed", &**name, shown(value)));
            }
        }
        Ok(())
    }
}

impl Connect {
    /// # Errors
    /// What is not allowed.
    pub(super) fn judge(&self) -> Result<(), String> {
        self.endpoint_config.as_ref().map_or(Ok(()), Endpoint::judge).map_err(|e| format!("EndpointConfig.{e}"))
    }
}

impl Endpoint {
    /// # Errors
    /// What is not allowed.
    pub(super) fn judge(&self) -> Result<(), String> {
        for (name, value) in self.driver_opts.iter().flatten() {
            let fits = match name.as_str() {
                "com.docker.network.endpoint.ifname" => is_made_of(value, "_-") && value.len() < 16,
                // `net.ipv4.conf.IFNAME.log_martians=1,…`, applied in the container's namespace (Engine 28).
                "com.docker.network.endpoint.sysctls" => value.split(',').all(|sysctl| {
                    let (name, value) = sysctl.split_once('=').unwrap_or((sysctl, ""));
                    name.starts_with("net.") && Sysctl::check(name).is_ok() && is_made_of(value, ". -")
                }),
                _ => return Err(format!("DriverOpts.{} is not allowed", shown(name))),
            };
            if !fits {
                return Err(format!("DriverOpts.{name} {} is not allowed", shown(value)));
            }
        }
        Ok(())
    }
}
