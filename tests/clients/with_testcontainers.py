"""A test as people write them with testcontainers. Usage: with_testcontainers.py IMAGE [leave], with DOCKER_HOST set.

With `leave` it dies without clearing up: that is what the reaper is for.
"""

import os
import sys
import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

SERVE = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"

container = DockerContainer(sys.argv[1]).with_command(["sh", "-c", SERVE]).with_exposed_ports(80)
with container.waiting_for(HttpWaitStrategy(80)):
    host, port = container.get_container_host_ip(), container.get_exposed_port(80)
    assert host in ("localhost", "127.0.0.1"), host
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
        assert answer.read() == b"hello\n"
    code, output = container.exec(["echo", "inside"])
    assert (code, output) == (0, b"inside\n")
    print("all is well", flush=True)
    if sys.argv[2:] == ["leave"]:
        os._exit(0)
