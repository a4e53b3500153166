# A throw-away host on this machine: OpenSSH's sshd on a loopback port, and an Engine of its own.
# Sourced by the demo and the benchmark. Sets work, socket, port, engine (yes or no); the host and
# all its files go when the shell that sourced this ends. $PATH must have dtunnel.

work=$(mktemp -d /tmp/dthost.XXXXXX)
bridge=dtd$$
dockerd= sshd= server=
clean_up() {
    set +e
    dtunnel down --all -q 2>/dev/null
    # An sshd's sessions are its children, and outlive it.
    for pid in $sshd $server; do kill "$pid" $(cat "/proc/$pid/task/$pid/children" 2>/dev/null) 2>/dev/null; done
    [ -n "$dockerd" ] && kill "$dockerd"
    for pid in $sshd $dockerd $server; do wait "$pid" 2>/dev/null; done
    [ -n "$dockerd" ] && ip link del "$bridge" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

export HOME="$work/home" XDG_RUNTIME_DIR="$work/run"
unset DOCKER_HOST DOCKER_CONTEXT DTUNNEL_CONFIG XDG_CONFIG_HOME XDG_STATE_HOME SSH_AUTH_SOCK
mkdir -m 700 "$HOME" "$XDG_RUNTIME_DIR" "$work/host"
until_there() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "waited in vain: $*" >&2; exit 1; }

socket=$work/host/docker.sock
start_engine() {
    [ "$(id -u)" = 0 ] && [ -x /usr/sbin/dockerd ] || return 1
    ip link add "$bridge" type bridge && ip addr add 172.29.251.1/24 dev "$bridge" && ip link set "$bridge" up || return 1
    dockerd --data-root "$work/host/data" --exec-root "$work/host/exec" --pidfile "$work/host/docker.pid" -H "unix://$socket" \
        --bridge "$bridge" --group root --iptables=false --ip6tables=false </dev/null >"$work/dockerd.log" 2>&1 &
    dockerd=$!
    until_there docker -H "unix://$socket" version
    mkdir -p "$work/host/image/bin"
    cp /bin/busybox "$work/host/image/bin/"
    for tool in sh echo sleep true uname; do ln -s busybox "$work/host/image/bin/$tool"; done
    tar -C "$work/host/image" -c . | docker -H "unix://$socket" import - busybox:latest >/dev/null
}
if start_engine; then
    engine=yes
else
    engine=no
    echo "This machine can run no Engine (that takes root and dockerd): a plain HTTP server on a Unix"
    echo "socket stands in for it, so that the tunnel is still seen working."
    python3 - "$socket" <<'PY' &
import http.server, os, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "Docker/0.0.0", "(stand-in)"
    def do_GET(self):
        body = b"OK" if self.path.endswith("/_ping") else b"hello through the tunnel\n"
        self.send_response(200); self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def address_string(self): return "client"
    def log_message(self, *_): pass
socketserver.ThreadingUnixStreamServer(sys.argv[1], Handler).serve_forever()
PY
    server=$!
    until_there test -S "$socket"
fi
ssh-keygen -q -t ed25519 -N '' -f "$work/host/host_key"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
cp "$work/key.pub" "$work/host/authorized_keys"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/host/sshd_config" <<CONFIG
Port $port
ListenAddress 127.0.0.1
HostKey $work/host/host_key
AuthorizedKeysFile $work/host/authorized_keys
StrictModes no
UsePAM no
PidFile none
CONFIG
[ "$(id -u)" = 0 ] && mkdir -p /run/sshd
/usr/sbin/sshd -D -f "$work/host/sshd_config" -E "$work/sshd.log" </dev/null >/dev/null 2>&1 &
sshd=$!
until_there ssh-keyscan -p "$port" 127.0.0.1
cat >"$work/ssh_config" <<CONFIG
Host *
  IdentityFile $work/key
  UserKnownHostsFile $work/known_hosts
  StrictHostKeyChecking accept-new
CONFIG
