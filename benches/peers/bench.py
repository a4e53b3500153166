"""dtunnel beside its peers, in one run. Started by scripts/bench, which makes the host and the link.

Each row is measured for all peers in turn, in random order, round after round, so that a machine that
is slow for a while is slow for all of them.
"""
import contextlib, json, os, random, statistics, subprocess, sys, threading, time

import flows, report

WORK, SOCKET, PORT = os.environ["WORK"], os.environ["ENGINE"], os.environ["PORT"]
NEAR, FAR = "127.0.0.1", os.environ["FAR"]
RAW, RAW_PORT = f"{WORK}/host/raw.sock", int(os.environ["RAW_PORT"])
DOCKER, SSH = "/usr/bin/docker", ["/usr/bin/ssh", "-F", f"{WORK}/ssh_config", "-p", PORT]
CIPHERS = ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr"]
MB = 1 << 20
QUICK = "--quick" in sys.argv
ONLY = [word for word in sys.argv[1:] if not word.startswith("-")]
RUN = ["run", "--rm", "--net=none", "busybox", "/bin/true"]
BLIND, GUARDED = "api = false", "guard on"
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def runs(count):
    return max(3, count // 5) if QUICK else count


def shuffled(peers):
    """The items, in another order each time."""
    return random.sample(list(peers.items()), len(peers))


class Results:
    """Samples by row and peer."""

    def __init__(self):
        self.rows = {}

    def add(self, row, peer, value, unit="ms"):
        self.rows.setdefault(row, {"unit": unit, "peers": {}})["peers"].setdefault(peer, []).append(value)

    def median(self, row, peer):
        return statistics.median(self.rows[row]["peers"][peer])


R = Results()


def wall(command, env=None, check=True, **streams):
    """Milliseconds that a command takes."""
    begun = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **(env or {})}, **{**QUIET, "stderr": subprocess.PIPE, **streams})
    taken, code = (time.perf_counter() - begun) * 1e3, done.returncode
    if check and code:
        raise SystemExit(f"{command} with {env} ended with {code}: {done.stderr.decode()}")
    return taken if not code else None


# ---- the peers

children = []


def background(command):
    child = subprocess.Popen(command, **QUIET)
    children.append(child)
    return child


def until_there(path):
    while not os.path.exists(path):
        time.sleep(0.02)


def ssh_forward(local, host, remote, *options):
    child = background([*SSH, *options, "-N", "-L", f"{local}:{remote}", host])
    until_there(local)
    return child


def dtunnel_up(name, host, remote, *options):
    """Brings a tunnel up; its socket and the daemon's process id."""
    local = f"{WORK}/{name}.dt"
    target = f"{host}:{PORT}"
    subprocess.run(["dtunnel", "up", target, "-q", "--local", f"unix:{local}", "--remote", remote, *options], check=True)
    return local, json.loads(subprocess.check_output(["dtunnel", "status", "--json", target]))[0]["pid"]


def dtunnel_down(host):
    subprocess.run(["dtunnel", "down", f"{host}:{PORT}", "-q"], check=True)


def ssh_url(host, mux=False):
    """docker's own ssh://; it runs `ssh` from $PATH."""
    return {"DOCKER_HOST": f"ssh://{host}:{PORT}", "PATH": f"{WORK}/{'mux' if mux else 'bin'}:{os.environ['PATH']}"}


@contextlib.contextmanager
def engines(host):
    """The Engine of `host` through each peer: what to put into docker's environment."""
    local, _ = dtunnel_up("engine", host, SOCKET)
    forward = ssh_forward(f"{WORK}/engine.L", host, SOCKET)
    peers = {"direct": {"DOCKER_HOST": f"unix://{SOCKET}"}} if host == NEAR else {}
    yield peers | {
        "dtunnel": {"DOCKER_HOST": f"unix://{local}"},
        "ssh -L": {"DOCKER_HOST": f"unix://{WORK}/engine.L"},
        "ssh://": ssh_url(host),
        "ssh:// mux": ssh_url(host, mux=True),
    }
    end(forward, f"{WORK}/engine.L")
    dtunnel_down(host)


def end(child, path=None):
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()  # An ssh that still closes channels does not hear.
        child.wait()
    if path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def raws(host, cipher=None, ssh_too=True):
    """server.py on `host` through dtunnel and ssh -L: {peer: (socket, process id)}."""
    options = ["-F", f"{WORK}/ssh_config.{cipher}"] if cipher else []
    local, pid = dtunnel_up("raw", host, RAW, *options)
    path = f"{WORK}/raw.L"
    forward = ssh_forward(path, host, RAW, *(["-c", cipher] if cipher else []))
    yield {"dtunnel": (local, pid), "ssh -L": (path, forward.pid)}
    end(forward, path)
    dtunnel_down(host)


# ---- the rows

def commands():
    for where, host in ("loopback", NEAR), ("50 ms", FAR):
        with engines(host) as peers:
            keep = subprocess.check_output(
                [DOCKER, "-H", f"unix://{SOCKET}", "run", "-d", "--net=none", "busybox", "/bin/sleep", "3600"], text=True).strip()
            for name, words in [
                ("docker ps", ["ps"]),
                ("docker version", ["version"]),
                ("docker exec", ["exec", keep, "/bin/true"]),
                ("docker run --rm", RUN),
            ]:
                count = runs(30 if host == NEAR and words[0] != "run" else 15)
                for turn in range(count + 1):
                    for peer, env in shuffled(peers):
                        if peer.startswith("ssh:") and turn > count // 3 + 1:
                            continue  # Slow, and far from the others.
                        time.sleep(0.4 if host == FAR else 0)
                        taken = wall([DOCKER, *words], env)
                        if turn:
                            R.add(f"{name}, {where}", peer, taken)
            if host == FAR:
                for turn in range(runs(6)):
                    for peer, env in shuffled({each: peers[each] for each in ("ssh -L", "dtunnel")}):
                        time.sleep(0.4)
                        taken = [wall([DOCKER, "ps"], env) for _ in range(7)]
                        for each in taken[1:]:
                            R.add("docker ps, 50 ms, back to back", peer, each)
            subprocess.run([DOCKER, "-H", f"unix://{SOCKET}", "rm", "-f", keep], **QUIET)


def make_images():
    """256 MB that no compression makes smaller, and a build's context of 200 MB."""
    if os.path.exists(f"{WORK}/layer"):
        return
    for name, size in ("context", 200), ("layer", 256):
        os.makedirs(f"{WORK}/{name}")
        with open(f"{WORK}/{name}/big", "wb") as big:
            for _ in range(size):
                big.write(os.urandom(MB))
    with open(f"{WORK}/context/Dockerfile", "w") as file:
        file.write("FROM busybox\n")
    subprocess.run(f"tar -C {WORK}/layer -c . | {DOCKER} -H unix://{SOCKET} import - big:1", shell=True, check=True, **QUIET)


def bulky(peers, turns, label=""):
    """The image saved and loaded, and a context sent."""
    make_images()
    for turn in range(turns):
        for peer, env in shuffled(peers):
            R.add(f"docker save 256 MB{label}", peer, wall([DOCKER, "save", "-o", f"{WORK}/saved", "big:1"], env))
        for peer, env in shuffled(peers):
            R.add(f"docker load 256 MB{label}", peer, wall([DOCKER, "load", "-q", "-i", f"{WORK}/saved"], env))
        for peer, env in shuffled(peers):
            env = {**env, "DOCKER_BUILDKIT": "0"}
            R.add(f"docker build, context of 200 MB{label}", peer, wall([DOCKER, "build", "-q", f"{WORK}/context"], env))


def images():
    with engines(NEAR) as peers:
        peers.pop("ssh:// mux")
        bulky(peers, runs(5))


def layer():
    """A tunnel that reads requests along beside one that does not (`api = false`), and one with a guard."""
    settings = {"dtunnel": "", BLIND: "api = false", GUARDED: 'access = ["containers", "build", "no-privileged"]'}
    path, names = f"{WORK}/layer.toml", {}
    with open(path, "w") as config:
        config.write(f'ssh_config = "{WORK}/ssh_config"\n')
        for at, (peer, line) in enumerate(settings.items()):
            names[peer] = f"layer{at}"
            place = f'host = "{NEAR}"\nport = {PORT}\nremote = "{SOCKET}"\nlocal = "unix:{WORK}/layer{at}.dt"\n'
            config.write(f"[profiles.layer{at}]\n{place}{line}\n")
    env = {**os.environ, "DTUNNEL_CONFIG": path}
    for name in names.values():
        subprocess.run(["dtunnel", "up", name, "-q"], check=True, env=env)
    sockets = {peer: f"{WORK}/{name}.dt" for peer, name in names.items()}
    peers = {peer: {"DOCKER_HOST": f"unix://{socket}"} for peer, socket in sockets.items()}
    streams = {peer: flows.connect(socket) for peer, socket in sockets.items()}
    for turn in range(runs(3000) + 50):
        for peer, stream in shuffled(streams):
            taken = flows.ping(stream)
            if turn >= 50:
                R.add("a ping on a connection that is kept, layer", peer, taken * 1e6, "µs")
    for name, words, count in ("docker ps", ["ps"], 60), ("docker run --rm", RUN, 15):
        for turn in range(runs(count) + 1):
            for peer, socket in shuffled(peers):
                taken = wall([DOCKER, *words], socket)
                if turn:
                    R.add(f"{name}, layer", peer, taken)
    bulky(peers, runs(10), ", layer")
    for name in names.values():
        subprocess.run(["dtunnel", "down", name, "-q"], check=True, env=env)


def cpu(pid):
    """Seconds of CPU that a process has used."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid, what):
    for line in open(f"/proc/{pid}/{'smaps_rollup' if what == 'Pss:' else 'status'}"):
        if line.startswith(what):
            return int(line.split()[1]) / 1024


def throughput():
    for cipher in [None, *CIPHERS]:
        with open(f"{WORK}/ssh_config.{cipher}", "w") as file:
            file.write(open(f"{WORK}/ssh_config").read() + (f"  Ciphers {cipher}\n" if cipher else ""))
        label = cipher.split("@")[0] if cipher else "defaults"
        with raws(NEAR, cipher) as peers:
            size = 256 * MB if QUICK else 1024 * MB
            for turn in range(runs(7)):
                for direction in "down", "up":
                    for peer, (path, pid) in shuffled(peers):
                        before = cpu(pid)
                        rate = size / flows.bulk(path, direction, size) / 1e6
                        R.add(f"1 GB {direction}, {label}", peer, rate, "MB/s")
                        if not cipher:
                            R.add(f"CPU per GB {direction}", peer, (cpu(pid) - before) * (1 << 30) / size, "s")
            if not cipher:
                for peer, (path, pid) in peers.items():
                    R.add("RSS after 10 GB", peer, memory(pid, "VmRSS"), "MiB")
                for turn in range(runs(5)):
                    for peer, (path, pid) in peers.items():
                        two(peer, path, pid, size)
    with raws(FAR) as peers:
        paths = {"raw TCP": (FAR, RAW_PORT)} | {peer: path for peer, (path, _) in peers.items()}
        for turn in range(runs(5)):
            for direction in "down", "up":
                for peer, path in shuffled(paths):
                    R.add(f"128 MB {direction}, 50 ms", peer, 128 * MB / flows.bulk(path, direction, 128 * MB) / 1e6, "MB/s")


def two(peer, path, pid, size):
    """Two downloads at once."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import flows; flows.bulk({path!r}, 'down', {size})"]
    before, begun = cpu(pid), time.perf_counter()
    both = [subprocess.Popen(command) for _ in range(2)]
    for child in both:
        assert child.wait() == 0
    taken = time.perf_counter() - begun
    R.add("two downloads at once", peer, 2 * size / taken / 1e6, "MB/s")
    R.add("CPU per GB, two downloads", peer, (cpu(pid) - before) * (1 << 29) / size, "s")


def latency():
    count = runs(1000)
    with raws(NEAR) as peers:
        streams = {peer: flows.connect(path) for peer, (path, _) in peers.items()}
        for stream in streams.values():
            stream.sendall(b"E")
        for turn in range(runs(4)):
            times = {peer: [] for peer in streams}
            # In turns, so that whatever else the machine does meets all of them.
            for _ in range(3000):
                for peer, stream in shuffled(streams):
                    times[peer].append(flows.echo(stream))
                    time.sleep(0.0005)
            for peer, each in times.items():
                each.sort()
                R.add("echo, idle, p50", peer, each[len(each) // 2] * 1e3)
                R.add("echo, idle, p99", peer, each[len(each) * 99 // 100] * 1e3)
        for stream in streams.values():
            stream.close()
        for turn in range(3):
            for load in ["down"], ["up"], ["down", "up"]:
                for peer, (path, _) in shuffled(peers):
                    busy = [flows.endless(path, direction) for direction in load]
                    time.sleep(0.5)
                    times = sorted(flows.echoes(path, count))
                    for child in busy:
                        end(child)
                    name = f"echo beside bulk {' and '.join(load)}"
                    R.add(f"{name}, p50", peer, times[len(times) // 2] * 1e3)
                    R.add(f"{name}, p99", peer, times[len(times) * 99 // 100] * 1e3)


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def concurrency():
    for where, host in ("loopback", NEAR), ("50 ms", FAR):
        with engines(host) as peers:
            for turn in range(runs(5)):
                for peer, env in shuffled(peers):
                    at_once(f"64 docker ps at once, {where}", peer, env, 64)
    for turn in range(runs(5)):
        # Cold: tunnels that have just come up, as a compose project finds them.
        with engines(FAR) as peers:
            for peer, env in shuffled(peers):
                at_once("30 API calls from cold, 50 ms", peer, env, 30)
    with raws(NEAR) as peers:
        for turn in range(3):
            for peer, (path, pid) in shuffled(peers):
                files, before = open_files(pid), memory(pid, "VmRSS")
                opening, echo, refusals, errors = flows.many(path, 1000)
                R.add("1000 flows at once: connected, and a first echo", peer, opening * 1e3)
                R.add("1000 flows at once: a second echo", peer, echo * 1e3)
                R.add("1000 flows at once: refusals", peer, refusals, "")
                R.add("1000 flows at once: errors", peer, errors, "")
                deadline = time.monotonic() + 10
                while open_files(pid) > files + 8 and time.monotonic() < deadline:
                    time.sleep(0.05)
                R.add("1000 flows at once: files more than before", peer, open_files(pid) - files, "")
                R.add("1000 flows at once: memory more than before", peer, memory(pid, "VmRSS") - before, "MiB")
        for turn in range(3):
            for peer, (path, _) in shuffled(peers):
                R.add("flows in turn", peer, flows.rate(path, 2), "/s")


def crowds():
    """10 000 flows on one tunnel, and 100 tunnels."""
    with raws(NEAR, ssh_too=False) as peers:
        path, pid = peers["dtunnel"]
        before = memory(pid, "VmRSS")
        for turn in range(2):
            most, watching = [before], threading.Event()
            watch = threading.Thread(target=lambda: [most.append(memory(pid, "VmRSS")) for _ in iter(lambda: watching.wait(0.05), True)])
            watch.start()
            errors = flows.many(path, 10_000)[-1]
            watching.set()
            watch.join()
            R.add("10 000 flows: errors", "dtunnel", errors, "")
            R.add("10 000 flows: memory each", "dtunnel", (max(most) - before) * 1024 / 10_000, "KiB")
            time.sleep(10)
            R.add("10 000 flows: memory 10 s later, more than before", "dtunnel", memory(pid, "VmRSS") - before, "MiB")
    config, count = f"{WORK}/crowd.toml", 100
    with open(config, "w") as file:
        file.write(f'ssh_config = "{WORK}/ssh_config"\n')
        for at in range(count):
            file.write(f'[profiles.c{at}]\nhost = "{NEAR}"\nport = {PORT}\nremote = "{RAW}"\n')
    env, names = {"DTUNNEL_CONFIG": config}, [f"c{at}" for at in range(count)]
    taken = wall(["dtunnel", "up", "-q", *names], env)
    tunnels = json.loads(subprocess.check_output(["dtunnel", "status", "--json", *names], env={**os.environ, **env}))
    R.add("100 tunnels: up", "dtunnel", taken)
    R.add("100 tunnels: memory together (PSS)", "dtunnel", sum(memory(each["pid"], "Pss:") for each in tunnels), "MiB")
    wall(["dtunnel", "down", "-q", *names], env)


def at_once(row, peer, env, count):
    begun = time.perf_counter()
    every = [subprocess.Popen([DOCKER, "ps"], env={**os.environ, **env}, **QUIET) for _ in range(count)]
    failed = sum(child.wait() != 0 for child in every)
    R.add(row, peer, (time.perf_counter() - begun) * 1e3)
    R.add(f"{row}: failed", peer, failed, "")


def many_files(directory, letters):
    for at in range(20_000):
        os.makedirs(f"{directory}/{at // 100}", exist_ok=True)
        with open(f"{directory}/{at // 100}/{at}", "wb") as file:
            file.write(letters[at % 3072 :])


def mounts():
    """A directory of this machine in a container: filled, beside rsync, and kept in step.

    Every fill has files of its own, and nothing is removed before the end: ext4 looks long for inodes while many have
    just been freed (recently_deleted), which would be measured here.
    """
    config, letters = f"{WORK}/mounts.toml", os.urandom(4096)
    with open(config, "w") as file:
        file.write(f'ssh_config = "{WORK}/ssh_config"\n')
        for name, host in ("near", NEAR), ("far", FAR):
            file.write(f'[profiles.{name}]\nhost = "{host}"\nport = {PORT}\nremote = "{SOCKET}"\nmounts = ["{WORK}/mounted"]\n')
    ours = {"DTUNNEL_CONFIG": config}
    for where, name, host in ("loopback", "near", NEAR), ("50 ms", "far", FAR):
        wall(["dtunnel", "up", name, "-q"], ours)
        engine = {"DOCKER_HOST": f"unix://{os.environ['XDG_RUNTIME_DIR']}/dtunnel/{name}.sock"}
        for turn in range(runs(5)):
            source = f"{WORK}/mounted/{name}/{turn}"
            many_files(source, letters)
            create = [DOCKER, "create", "--name", f"{name}-{turn}", "-v", f"{source}:/app", "busybox", "sleep", "600"]
            os.makedirs(f"{WORK}/copies", exist_ok=True)
            rsync = ["rsync", "-a", "-e", " ".join(SSH), f"{source}/", f"{host}:{WORK}/copies/{name}-{turn}/"]
            for peer, command, env in random.sample([("dtunnel", create, engine), ("rsync -a", rsync, {})], 2):
                R.add(f"20 000 files to the host, {where}", peer, wall(command, env))
        last = f"{name}-{turn}"
        wall([DOCKER, "start", last], engine)
        status = json.loads(subprocess.check_output(["dtunnel", "mounts", name, "--json"], env={**os.environ, **ours}))
        (mirror,) = [mount["mirror"] for mount in status if mount["path"] == source]
        time.sleep(3)
        for turn in range(runs(15)):
            begun, text = time.perf_counter(), f"edit {turn} {where}"
            with open(f"{source}/7/700", "w") as file:
                file.write(text)
            while open(f"{mirror}/tree/7/700", "rb").read() != text.encode():
                time.sleep(0.001)
            R.add(f"an edit until the container has it, {where}", "dtunnel", (time.perf_counter() - begun) * 1e3)
            time.sleep(0.3)
        for turn in range(runs(10)):
            write = [DOCKER, "exec", last, "sh", "-c", f"echo {turn} > /app/built"]
            R.add(f"docker exec that writes a file, which is here then, {where}", "dtunnel", wall(write, engine))
        for turn in range(runs(5)):
            wall([DOCKER, "rm", "-f", f"{name}-{turn}"], engine)
    for name in "near", "far":
        wall(["dtunnel", "mounts", name, "--prune"], ours)
        wall(["dtunnel", "down", name, "-q"], ours)


def small_things():
    with raws(NEAR) as peers:
        time.sleep(1)
        before, begun = {peer: cpu(pid) for peer, (_, pid) in peers.items()}, time.monotonic()
        time.sleep(10 if QUICK else 60)
        for peer, (_, pid) in peers.items():
            R.add("idle RSS", peer, memory(pid, "VmRSS"), "MiB")
            R.add("idle CPU", peer, (cpu(pid) - before[peer]) / (time.monotonic() - begun) * 100, "%")
    with engines(NEAR):
        for turn in range(runs(20)):
            R.add("dtunnel env", "dtunnel", wall(["dtunnel", "env", f"{NEAR}:{PORT}", "--shell", "sh"]))
            R.add("dtunnel status", "dtunnel", wall(["dtunnel", "status"]))
    for where, host in ("loopback", NEAR), ("50 ms", FAR):
        for turn in range(runs(15)):
            R.add(f"up, {where}", "ssh host true", wall([*SSH, host, "true"]))
            taken = wall(["dtunnel", "up", f"{host}:{PORT}", "-q", "--remote", SOCKET])
            R.add(f"up, {where}", "dtunnel", taken)
            if host == FAR:
                R.add("up, 50 ms: round trips", "dtunnel", taken / 50, "")
            dtunnel_down(host)
    R.add("binary", "dtunnel", os.path.getsize(os.environ["DTUNNEL"]) / 1e6, "MB")


def main():
    begun = time.monotonic()
    try:
        for part in commands, layer, latency, throughput, concurrency, crowds, images, mounts, small_things:
            if not ONLY or part.__name__ in ONLY:
                print(f"… {part.__name__}", file=sys.stderr, flush=True)
                part()
    finally:
        for child in children:
            if child.poll() is None:
                end(child)
    print(report.text(R.rows))
    if not ONLY and not QUICK:
        report.write(R.rows, os.environ["DOCS"])
    print(f"\n{(time.monotonic() - begun) / 60:.0f} minutes")


main()
