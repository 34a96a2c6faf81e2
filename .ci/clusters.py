"""Network namespaces that stand in for clusters. In each runs the gateway that was rendered for it: keeper and tunnel as
processes with the arguments of their containers, Services as rules for packets, names in a hosts file."""

import base64
import os
import signal
import subprocess
from pathlib import Path

import yaml
from local import FERRY, until

LINKS = 30200
# Where the containers have their volumes: the only thing that is changed in what was rendered.
MOUNTS = ("/etc/ferry/", "/run/ferry/", "/data/")


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


class Cluster:
    """One of them, with what the bundle has for its gateway; not yet started."""

    def __init__(self, lab, name, bundle):
        self.lab, self.name, self.root = lab, name, lab.path / name
        self.pod = bundle / f"gateway-cluster-{name}"
        holder = lab.start("unshare", "--mount", "--net", "--propagation", "private", "sleep", "infinity")
        self.inside = ("nsenter", "--target", str(holder.pid), "--mount", "--net", "--")
        own = os.readlink("/proc/self/ns/net")
        until("a namespace", lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own)
        self.namespace, self.tunnel, self.addresses = str(holder.pid), None, []
        self.output("ip", "link", "set", "lo", "up")

    def output(self, *command, **more):
        return self.lab.output(*self.inside, *command, **more)

    def start(self, *command):
        return self.lab.start(*self.inside, *(str(word) for word in command))

    def lay_wire(self, other, network):
        """To another cluster; that one's address, and it is a network of the two alone."""
        ends = ((self, f"{network}.1", f"ferry-{self.name}"), (other, f"{network}.2", f"ferry-{other.name}{self.name}"))
        self.output("ip", "link", "add", ends[0][2], "type", "veth", "peer", "name", ends[1][2])
        self.output("ip", "link", "set", ends[1][2], "netns", other.namespace)
        for cluster, address, device in ends:
            cluster.output("ip", "address", "add", f"{address}/24", "dev", device)
            cluster.output("ip", "link", "set", device, "up")
        return ends[1][1]

    def deploy(self, targets):
        """Writes the volumes of the pod, and does what a cluster does for its Services. `targets` are names of its own."""
        configuration, deployment = documents(self.pod / "03-deployment.yaml")
        (secret,) = [held for held in documents(self.pod / "02-secrets.yaml") if "identity.key" in held["data"]]
        for directory in ("etc/ferry/config", "etc/ferry/identity", "etc/ferry/addresses", "run/ferry", "data"):
            (self.root / directory).mkdir(parents=True, mode=0o700)
        (self.root / "etc/ferry/config/tunnel.yaml").write_text(self.here(configuration["data"]["tunnel.yaml"]))
        identity = self.root / "etc/ferry/identity/identity.key"
        identity.touch(mode=0o600)
        identity.write_bytes(base64.b64decode(secret["data"]["identity.key"]))
        pod = deployment["spec"]["template"]["spec"]
        self.commands = {one["name"]: self.command(one) for one in pod["initContainers"] + pod["containers"]}

        rules, hosts = [], ["127.0.0.1 localhost", *(f"127.0.0.1 {name}" for name in targets)]
        services = documents(self.pod / "04-service.yaml")
        for number, service in enumerate(one for one in services if one["spec"]["type"] == "ClusterIP"):
            address, metadata, (port,) = f"10.96.0.{10 + number}", service["metadata"], service["spec"]["ports"]
            self.output("ip", "address", "add", f"{address}/32", "dev", "lo")
            rules.append(f"ip daddr {address} tcp dport {port['port']} redirect to :{port['targetPort']}")
            hosts.append(f"{address} {metadata['name']}.{metadata['namespace']}.svc")
        (self.root / "hosts").write_text("\n".join(hosts) + "\n")
        self.output("mount", "--bind", self.root / "hosts", "/etc/hosts")
        self.packets("services", f"""
            chain output {{ type nat hook output priority -100; {"; ".join(rules)}; }}
            chain prerouting {{ type nat hook prerouting priority -100; tcp dport {LINKS} redirect to :18000; }}""")
        self.start(*self.commands["keeper"])
        self.start_tunnel()

    def here(self, text):
        for mount in MOUNTS:
            text = text.replace(mount, f"{self.root}{mount}")
        return text

    def command(self, container):
        return [FERRY, *(self.here(word) for word in container["args"])]

    def start_tunnel(self):
        self.tunnel = self.start(*self.commands["tunnel"])

    def learn(self, gateway, address):
        """What the scripts do with the address of a gateway that this one dials."""
        self.addresses.append(address)
        path = self.root / "etc/ferry/addresses" / gateway
        path.with_suffix(".new").write_text(f"{address}:{LINKS}\n")
        path.with_suffix(".new").rename(path)

    def ask(self, path):
        return self.output("curl", "-sS", "-m", "10", f"http://127.0.0.1:9900{path}", allowed=())

    def wait_for_peers(self):
        until(f"the peers of {self.name}", lambda: self.ask("/readyz?peers=1") == "ready\n", 20, 0.2)

    def metric(self, name):
        lines = self.ask("/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def packets(self, table, chains):
        """Sets a table of rules for packets."""
        text = f"table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n{chains}\n}}\n"
        subprocess.run([*self.inside, "nft", "-f", "-"], input=text, text=True, check=True)

    # What breaks. Of a cluster that dials: its links alone.

    def drop(self):
        """No packet of its links comes through any more, in either direction, and nobody is told."""
        chains = ("input", "output")
        rules = {"input": f"tcp sport {LINKS} drop", "output": f"tcp dport {LINKS} drop"}
        self.packets("cut", "\n".join(f"chain {one} {{ type filter hook {one} priority -200; {rules[one]}; }}" for one in chains))

    def undrop(self):
        self.packets("cut", "")

    def forget_links(self, at=None):
        """Ends their sockets: here, or `at` the far end alone, where the reset is lost while packets are dropped."""
        if at is None:
            self.output("ss", "-K", "-t", "dport", "=", f":{LINKS}")
        else:
            for address in self.addresses:
                at.output("ss", "-K", "-t", "dst", address.rsplit(".", 1)[0] + ".1")

    def crash(self):
        """The tunnel's container is killed, and started again as a kubelet does."""
        self.tunnel.send_signal(signal.SIGKILL)
        self.tunnel.wait()
        self.start_tunnel()
