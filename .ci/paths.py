"""Two hosts in network namespaces, a tunnel on each, and an application that sends back what it gets."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from local import FERRY, ROOT  # noqa: F401

NEAR, FAR = "ferry-near", "ferry-far"
ADDRESSES = {NEAR: "10.77.0.1", FAR: "10.77.0.2"}
EGRESS, LINKS, APP, ADMIN = 18001, 18000, 8000, 9900


def skip_unless_possible(*tools):
    if os.geteuid() != 0:
        print("skipped: needs root for network namespaces")
        sys.exit(0)
    missing = [tool for tool in ("ip", *tools) if shutil.which(tool) is None]
    if missing:
        packages = {"ip": "iproute2", "ss": "iproute2", "nft": "nftables"}
        wanted = sorted({packages[tool] for tool in missing})
        run("apt-get", "update", "-q")
        run("apt-get", "install", "-qy", "--no-install-recommends", *wanted)


def run(*command, check=True, quiet=False):
    errors = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=300).stdout


def inside(namespace, *command, **options):
    return run("ip", "netns", "exec", namespace, *command, **options)


class Hosts:
    """Both hosts, for as long as the `with` block lasts."""

    def __enter__(self):
        self.processes, self.directory = [], tempfile.TemporaryDirectory()
        self.remove()
        for namespace in ADDRESSES:
            run("ip", "netns", "add", namespace)
            inside(namespace, "ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "veth-near", "netns", NEAR, "type", "veth", "peer", "name", "veth-far", "netns", FAR)
        for namespace, address in ADDRESSES.items():
            device = "veth-near" if namespace == NEAR else "veth-far"
            inside(namespace, "ip", "address", "add", f"{address}/24", "dev", device)
            inside(namespace, "ip", "link", "set", device, "up")
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        self.remove()
        self.directory.cleanup()

    def remove(self):
        for namespace in ADDRESSES:
            subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL, check=False)

    def start(self, namespace, *command, log=None):
        output = open(log, "wb") if log else subprocess.DEVNULL
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *command], stdout=output, stderr=output)
        self.processes.append(process)
        return process

    def log(self, namespace):
        return Path(self.directory.name, namespace + ".log")

    def start_tunnels(self, extra=""):
        """`extra` is added to the near end's configuration."""
        keys = {}
        for namespace in ADDRESSES:
            key = Path(self.directory.name, namespace + ".key")
            run(FERRY, "keygen", "--out", str(key))
            keys[namespace] = run(FERRY, "pubkey", str(key)).strip()
        configs = {
            FAR: f"""
listen: 0.0.0.0:{LINKS}
peers: [{{name: near, keys: ["{keys[NEAR]}"]}}]
ingress: [{{service: echo, forward: "127.0.0.1:{APP}", allow: [near]}}]
""",
            NEAR: f"""
peers: [{{name: far, keys: ["{keys[FAR]}"], addresses: ["{ADDRESSES[FAR]}:{LINKS}"]}}]
egress: [{{listen: "127.0.0.1:{EGRESS}", peer: far, service: echo}}]
{extra}
""",
        }
        for namespace, text in configs.items():
            config = Path(self.directory.name, namespace + ".yaml")
            name = "near" if namespace == NEAR else "far"
            head = f"name: {name}\nidentity: {namespace}.key\nadmin: 127.0.0.1:{ADMIN}\n"
            config.write_text(head + text)
            self.start(namespace, FERRY, "tunnel", "--config", str(config), log=self.log(namespace))

    def start_echo(self):
        self.start(FAR, sys.executable, __file__, "echo")

    def wait_for(self, what, condition, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except (OSError, subprocess.CalledProcessError):
                pass
            time.sleep(0.1)
        for namespace in ADDRESSES:
            print(f"--- {namespace}\n" + self.log(namespace).read_text(errors="replace")[-3000:])
        sys.exit(f"failed: {what} within {seconds} s")


def connect():
    return socket.create_connection(("127.0.0.1", EGRESS), timeout=90)


def exchange(connection, payload=b"x" * 64):
    """Sends bytes and takes them back; how long it took."""
    before = time.monotonic()
    connection.sendall(payload)
    left = len(payload)
    while left:
        got = connection.recv(min(left, 65536))
        if not got:
            raise OSError("the connection has ended")
        left -= len(got)
    return time.monotonic() - before


def echo():
    listener = socket.create_server(("127.0.0.1", APP), backlog=1024)

    def serve(connection):
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
                    if data.startswith(b"q"):
                        return
            except OSError:
                pass

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__" and sys.argv[1:] == ["echo"]:
    echo()
