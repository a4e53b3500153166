//! docker-java (testcontainers, Jenkins) under a guard: its requests byte by byte, as `DefaultDockerCmdExecFactory`,
//! `DefaultInvocationBuilder` and Apache's client (5.4, which offers TLS by an upgrade in every request) make them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::lab::engine::IMAGE;
use crate::lab::{Lab, connect};

/// What it asks for in every request.
const COMMON: &str = "Accept-Encoding: gzip, x-gzip, deflate\r\nHost: localhost:2375\r\nConnection: keep-alive\r\n\
    User-Agent: Apache-HttpClient/5.5 (Java/17)\r\n";
/// Jackson writes what is not set, too.
const CREATE: &str = r#"{"Hostname":null,"Domainname":null,"User":null,"AttachStdin":null,"AttachStdout":null,"AttachStderr":null,"PortSpecs":null,"Tty":null,"OpenStdin":true,"StdinOnce":null,"Env":["A=b"],"Cmd":["sh","-c","echo started; cat"],"Healthcheck":null,"ArgsEscaped":null,"Entrypoint":null,"Image":"IMAGE","Volumes":{},"WorkingDir":null,"MacAddress":null,"OnBuild":null,"NetworkDisabled":null,"ExposedPorts":{"80/tcp":{}},"StopSignal":null,"StopTimeout":null,"HostConfig":{"Binds":null,"BlkioWeight":null,"BlkioWeightDevice":null,"BlkioDeviceReadBps":null,"BlkioDeviceWriteBps":null,"BlkioDeviceReadIOps":null,"BlkioDeviceWriteIOps":null,"MemorySwappiness":null,"NanoCpus":null,"Annotations":null,"CapAdd":null,"CapDrop":null,"ContainerIDFile":null,"CpuPeriod":null,"CpuRealtimePeriod":null,"CpuRealtimeRuntime":null,"CpuShares":null,"CpuQuota":null,"CpusetCpus":null,"CpusetMems":null,"Devices":null,"DeviceCgroupRules":null,"DeviceRequests":null,"DiskQuota":null,"Dns":null,"DnsOptions":null,"DnsSearch":null,"ExtraHosts":["host.testcontainers.internal:172.17.0.1"],"GroupAdd":null,"IpcMode":null,"Cgroup":null,"Links":null,"LogConfig":null,"LxcConf":null,"Memory":null,"MemorySwap":null,"MemoryReservation":null,"KernelMemory":null,"NetworkMode":null,"OomKillDisable":null,"Init":null,"AutoRemove":null,"OomScoreAdj":null,"PortBindings":{"80/tcp":[{"HostIp":null,"HostPort":null}]},"Privileged":null,"PublishAllPorts":null,"ReadonlyRootfs":null,"RestartPolicy":null,"Ulimits":null,"CpuCount":null,"CpuPercent":null,"IOMaximumIOps":null,"IOMaximumBandwidth":null,"VolumesFrom":[],"Mounts":null,"PidMode":null,"Isolation":null,"SecurityOpt":null,"StorageOpt":null,"CgroupParent":null,"VolumeDriver":null,"ShmSize":null,"PidsLimit":null,"Runtime":null,"Tmpfs":null,"UTSMode":null,"UsernsMode":null,"Sysctls":null,"ConsoleSize":null,"CgroupnsMode":null},"Labels":{"org.testcontainers":"true"},"Shell":null,"NetworkingConfig":null}"#;

struct Client(UnixStream);

impl Client {
    /// A request with whatever stands behind its common headers; status and body of the answer.
    fn ask(&mut self, line: &str, more: &str, body: &str) -> (u16, String) {
        let upgrade = if more.contains("Upgrade: tcp") { "" } else { "Upgrade: TLS/1.2\r\nConnection: Upgrade\r\n" };
        let length = match (line.split(' ').next(), body) {
            (Some("POST"), "") | (Some("GET" | "DELETE"), _) => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let request =
            format!("{line} HTTP/1.1\r\naccept: application/json\r\n{more}{COMMON}{upgrade}{length}\r\n{body}");
        self.0.write_all(request.as_bytes()).unwrap();
        self.answer(line)
    }

    fn post(&mut self, path: &str, body: &str) -> (u16, String) {
        self.ask(&format!("POST {path}"), "content-type: application/json\r\n", body)
    }

    fn get(&mut self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path}"), "", "")
    }

    fn until(&mut self, end: &[u8]) -> String {
        let mut all = Vec::new();
        let mut byte = [0];
        while !all.ends_with(end) {
            self.0.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} behind {:?}", String::from_utf8_lossy(&all)));
            all.push(byte[0]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    fn answer(&mut self, line: &str) -> (u16, String) {
        let head = self.until(b"\r\n\r\n").to_lowercase();
        let code = head[9..12].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let body = match length {
            _ if [101, 204, 304].contains(&code) => String::new(),
            Some(length) => {
                let mut body = vec![0; length];
                self.0.read_exact(&mut body).unwrap();
                String::from_utf8_lossy(&body).into_owned()
            }
            None if head.contains("transfer-encoding: chunked") => self.until(b"0\r\n\r\n"),
            None => panic!("{line}: {head}"),
        };
        (code, body)
    }
}

/// All that testcontainers does for one container, on one connection but for the streams.
#[track_caller]
fn session(lab: &Lab) {
    let mut client = Client(connect(&lab.socket("lab")));
    assert_eq!(client.get("/_ping").0, 200);
    for path in [
        "/info",
        "/version",
        "/containers/json?all=true&filters=%7B%22label%22%3A%5B%22org.testcontainers%3Dtrue%22%5D%7D",
    ] {
        let (code, body) = client.get(path);
        assert_eq!(code, 200, "{path}: {body}");
    }
    // Names are encoded as one segment.
    assert_eq!(client.get("/images/testcontainers%2Fryuk:0.5.1/json").0, 404);
    assert_eq!(client.get(&format!("/images/{IMAGE}/json")).0, 200);
    // A pull goes to its end, which says that nobody listens there.
    let (code, body) = client.post("/images/create?fromImage=127.0.0.1:1%2Ftestcontainers%2Fryuk&tag=0.5.1", "");
    assert!(code >= 404 && !body.contains("dtunnel"), "{code} {body}");
    let (code, body) = client.post("/containers/create?name=from-java", &CREATE.replace("IMAGE", IMAGE));
    assert_eq!(code, 201, "{body}");
    let id = body.split('"').nth(3).unwrap().to_owned();
    let (code, body) = client.get(&format!("/containers/{id}/json"));
    assert!(code == 200 && body.contains("/from-java"), "{code} {body}");

    // Attached with an input, over a connection of its own, with the body `null`.
    let hijack = "content-type: application/json\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n";
    let mut attached = Client(connect(&lab.socket("lab")));
    let line = format!("POST /containers/{id}/attach?stdin=true&stdout=true&stderr=true&stream=true");
    let common = COMMON.replace("Connection: keep-alive\r\n", "");
    attached
        .0
        .write_all(format!("{line} HTTP/1.1\r\n{hijack}{common}Content-Length: 4\r\n\r\nnull").as_bytes())
        .unwrap();
    assert_eq!(attached.answer(&line).0, 101);
    assert_eq!(client.post(&format!("/containers/{id}/start"), "").0, 204);
    assert!(attached.until(b"started\n").ends_with("started\n"));
    attached.0.write_all(b"through\n").unwrap();
    assert!(attached.until(b"through\n").ends_with("through\n"));

    let exec = r#"{"AttachStdin":null,"AttachStdout":true,"AttachStderr":true,"Tty":null,"Privileged":null,"User":null,"Cmd":["echo","executed"],"Env":null,"WorkingDir":null}"#;
    let (code, body) = client.post(&format!("/containers/{id}/exec"), exec);
    assert_eq!(code, 201, "{body}");
    let run = body.split('"').nth(3).unwrap().to_owned();
    // Without an input there is no upgrade: the Engine answers with a raw stream, which ends with the connection.
    let mut started = Client(connect(&lab.socket("lab")));
    let body = r#"{"Detach":null,"Tty":null}"#;
    let head = format!(
        "POST /exec/{run}/start HTTP/1.1\r\ncontent-type: application/json\r\n{COMMON}Content-Length: {}\r\n\r\n",
        body.len()
    );
    started.0.write_all(format!("{head}{body}").as_bytes()).unwrap();
    assert!(started.until(b"executed\n").starts_with("HTTP/1.1 200 "));
    assert_eq!(client.get(&format!("/exec/{run}/json")).0, 200);

    let (code, body) = client.get(&format!("/containers/{id}/logs?stdout=true&stderr=true&tail=10"));
    assert!(code == 200 && body.contains("through"), "{body}");
    assert_eq!(client.get(&format!("/containers/{id}/top?ps_args=aux")).0, 200);
    assert_eq!(client.post(&format!("/containers/{id}/resize?h=20&w=80"), r#"{"Height":20,"Width":80}"#).0, 200);
    assert_eq!(client.post(&format!("/containers/{id}/kill?signal=KILL"), "").0, 204);
    let (code, body) = client.post(&format!("/containers/{id}/wait"), "");
    assert!(code == 200 && body.contains("137"), "{body}");
    assert_eq!(client.get("/events?since=1&until=2").0, 200);
    let (code, body) = client.ask(&format!("DELETE /containers/{id}?v=true&force=true"), "", "");
    assert_eq!(code, 204, "{body}");
}

#[test]
fn its_session_passes_a_guard() {
    let Some(lab) = Lab::with_engine() else { return };
    lab.write_config(&format!(
        "ssh_config = {:?}\n[profiles.lab]\nremote = {:?}\naccess = [\"containers\", \"build\"]\n",
        lab.path("ssh_config"),
        lab.remote_socket()
    ));
    lab.ok(&["up", "lab"]);
    session(&lab);
}
