"""A small suite through docker-py. Usage: docker_py.py IMAGE [more], with DOCKER_HOST set."""

import concurrent.futures
import hashlib
import io
import os
import sys
import tarfile

import docker

IMAGE = sys.argv[1]
# Other tests run this at the same time on the same Engine.
NAME, NETWORK = f"docker-py-{os.getpid()}", f"docker py {os.getpid()}"
client = docker.from_env(timeout=60)

assert client.ping()
assert client.version()["ApiVersion"]
assert client.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"

# Logs that follow end with the container. It waits for them: of a container that ends by itself an Engine of 20.10
# now and then ends them, with the last chunk, before they are all there.
command = ["sh", "-c", "for i in $(seq 500); do echo $i; done; exec sleep 600"]
container = client.containers.run(IMAGE, command, detach=True)
lines = b""
for piece in container.logs(stream=True, follow=True):
    lines += piece
    if lines.endswith(b"\n500\n"):
        container.kill()
assert lines.split() == [str(i).encode() for i in range(1, 501)], lines[-30:]
assert container.wait()["StatusCode"] == 137
container.remove()

container = client.containers.run(IMAGE, ["sleep", "600"], detach=True)
try:
    # exec: output, exit code, both streams apart.
    code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
    assert (code, out, err) == (3, b"out\n", b"err\n"), (code, out, err)

    # A hijacked connection whose standard input is ended by a half-close.
    run = client.api.exec_create(container.id, ["wc", "-c"], stdin=True)
    sock = client.api.exec_start(run["Id"], socket=True)
    raw = getattr(sock, "_sock", sock)
    raw.sendall(b"x" * 1_000_000)
    raw.shutdown(1)
    answer = b""
    while piece := raw.recv(4096):
        answer += piece
    assert answer.strip().endswith(b"1000000"), answer

    # Archives both ways.
    data = os.urandom(2_000_000)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("data")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    assert container.put_archive("/tmp", tar.getvalue())
    stream, _ = container.get_archive("/tmp/data")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        back = archive.extractfile("data").read()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
finally:
    container.remove(force=True)

# Many at once.
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    assert all(pool.map(lambda _: docker.from_env().ping(), range(60)))

if "more" in sys.argv:
    # What docker-py's own suite does and a guard could stumble over.
    low = client.api
    made = low.create_container(IMAGE, ["true"], runtime="runc", volumes=["/data"], environment={"A": "b"})
    assert low.inspect_container(made)["HostConfig"]["Runtime"] == "runc"
    low.remove_container(made, v=True)
    network = client.networks.create(NETWORK, driver="bridge", internal=True, labels={"a": "b"})
    volume = client.volumes.create(NAME, driver="local", driver_opts={"type": "tmpfs", "device": "tmpfs"})
    container = client.containers.create(
        IMAGE, ["sh", "-c", "echo out; exec sleep 600"], name=NAME, network=NETWORK, detach=True,
        volumes={NAME: {"bind": "/v", "mode": "rw"}}, tmpfs={"/t": "size=1m"}, cap_drop=["ALL"], cap_add=["CHOWN"],
        security_opt=["no-new-privileges"], mem_limit="64m", nano_cpus=500_000_000, pids_limit=50, init=False,
        ulimits=[docker.types.Ulimit(name="nofile", soft=100, hard=100)], sysctls={"net.core.somaxconn": "128"},
        log_config=docker.types.LogConfig(config={"tag": "{{.Name}}"}), restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        healthcheck={"test": ["CMD", "true"], "interval": 1_000_000_000}, extra_hosts={"other": "192.0.2.1"}, ports={"80/tcp": None},
        mounts=[docker.types.Mount("/m", None, type="tmpfs")], read_only=True, stop_signal="KILL", user="0",
    )
    try:
        container.start()
        run = low.exec_create(container.id, ["echo", "keys"], detach_keys="ctrl-x,x")
        assert low.exec_start(run) == b"keys\n"
        container.update(mem_limit="128m", memswap_limit="256m")
        container.rename(f"{NAME}-2")
        container.pause()
        container.unpause()
        network.disconnect(container)
        network.connect(container, aliases=["py"])
        assert container.top()["Processes"] and container.diff() is not None and container.stats(stream=False)
        image = container.commit(NAME, "1", message="m", author="a", changes=["ENV X=y"], conf={"Cmd": ["true"]})
        assert "X=y" in client.images.get(f"{NAME}:1").attrs["Config"]["Env"]
        image.tag(NAME, "2")
        client.images.remove(f"{NAME}:2")
        loaded = client.images.load(b"".join(image.save(named=f"{NAME}:1")))
        assert loaded[0].id == image.id
        dockerfile = f"FROM {IMAGE}\nRUN echo built > /x\n".encode()
        built, _ = client.images.build(fileobj=io.BytesIO(dockerfile), tag=f"{NAME}:b", network_mode=NETWORK, rm=True)
        assert client.containers.run(built, ["cat", "/x"], remove=True, network_mode=f"container:{NAME}-2") == b"built\n"
        client.images.remove(f"{NAME}:b")
        client.images.remove(f"{NAME}:1")
        container.restart(timeout=0)
        container.stop(timeout=0)
    finally:
        container.remove(force=True, v=True)
        network.remove()
        volume.remove()

print("all is well")
