"""Direct, Ferry and its peers, each set up as its own documentation says is best for what is tried here.

A tunnel listens on the near host's loopback and leads to `forward`, as the far host finds it.
"""

import dataclasses
import os
import shutil
import subprocess
import time
import typing
import urllib.request
from pathlib import Path

from lab import Broken, Process, Unavailable

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Settings:
    """How the processes of a tunnel are started."""

    # Where its log goes: a "file", a pipe that is "unread", a device that is "full".
    output: str = "file"
    # RLIMIT_NOFILE.
    files: int | None = None
    # What makes their environment, given the lab.
    environment: typing.Callable | None = None
    # The host of the application, as the far end is told it.
    forward: str | None = None
    # The far tunnel, as the near end is told it.
    link: str | None = None
    # Ferry's interval of rotation.
    rotate_every: str | None = None


@dataclasses.dataclass
class Running:
    """What an application connects to, and the processes in between."""

    address: tuple
    near: Process | None = None
    far: Process | None = None
    admin: tuple | None = None
    link_port: int | None = None


def need(program):
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not found:
        raise Unavailable(f"{program} is not installed")
    return found


class Tunnel:
    """A pair of processes; `near` and `far` give their command lines."""

    name: str
    package: str | None = None

    def version(self):
        raise NotImplementedError

    def start(self, lab, app, settings):
        near = ("127.0.0.1", lab.near.free_port("127.0.0.1"))
        link = (settings.link or lab.far.address, lab.far.free_port())
        to = (settings.forward or app[0], app[1])
        self.prepare(lab, settings)
        far = lab.start(lab.far, "far", self.far(lab, link, to), settings)
        lab.wait_for_port(lab.far, link, far)
        running = Running(near, far=far, link_port=link[1])
        running.near = lab.start(lab.near, "near", self.near(lab, near, link), settings)
        lab.wait_for_port(lab.near, near, running.near)
        self.settle(lab, running)
        return running

    def prepare(self, lab, settings):
        pass

    def settle(self, lab, running):
        pass


class Direct(Tunnel):
    name = "direct"

    def version(self):
        return "TCP of Linux " + os.uname().release.split("-")[0]

    def start(self, lab, app, settings):
        return Running((settings.forward or app[0], app[1]))


class Ferry(Tunnel):
    name = "ferry"

    def program(self):
        path = Path(os.environ.get("FERRY_BIN", ROOT / "target/release/ferry"))
        if not path.is_file():
            raise Unavailable("ferry is not built (cargo build --release, or name it in FERRY_BIN)")
        return path

    def version(self):
        return output([self.program(), "--version"])

    def prepare(self, lab, settings):
        self.keys = {}
        for end in ("near", "far"):
            key = lab.dir / f"{end}.key"
            if not key.exists():
                output([self.program(), "keygen", "--out", key])
            self.keys[end] = output([self.program(), "pubkey", key])
        self.admin = lab.near.free_port("127.0.0.1")
        self.rotation = f"rotation: {{every: {settings.rotate_every}}}\n" if settings.rotate_every else ""

    def near(self, lab, listen, link):
        text = f"""name: behaviours/near
identity: near.key
admin: 127.0.0.1:{self.admin}
peers:
  - {{name: behaviours/far, keys: ["{self.keys['far']}"], addresses: ["{link[0]}:{link[1]}"]}}
egress:
  - {{listen: "{listen[0]}:{listen[1]}", peer: behaviours/far, service: app}}
{self.rotation}"""
        return [self.program(), "tunnel", "--config", lab.write("near.yaml", text)]

    def far(self, lab, listen, to):
        text = f"""name: behaviours/far
identity: far.key
listen: {lab.far.address}:{listen[1]}
peers:
  - {{name: behaviours/near, keys: ["{self.keys['near']}"]}}
ingress:
  - {{service: app, forward: "{to[0]}:{to[1]}", allow: [behaviours/near]}}
{self.rotation}"""
        return [self.program(), "tunnel", "--config", lab.write("far.yaml", text)]

    def settle(self, lab, running):
        """Warm links are there, as they are wherever a tunnel has run for a moment."""
        running.admin = ("127.0.0.1", self.admin)
        for _ in range(200):
            if get(lab, running.admin, "/readyz?peers=1"):
                return
            time.sleep(0.05)


def get(lab, address, path, timeout=2):
    """What an HTTP endpoint on the near host answers; nothing if it does not, or not 200."""
    with lab.near:
        try:
            with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=timeout) as answer:
                return answer.read().decode()
        except OSError:
            return None


def certificate(lab, name):
    """A key and a certificate for ten years, in one file and the certificate alone in another."""
    pem, alone = lab.dir / f"{name}.pem", lab.dir / f"{name}.crt"
    if not pem.exists():
        key = lab.dir / f"{name}.private"
        output(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", f"/CN={name}",
                "-keyout", key, "-out", alone])
        pem.write_text(alone.read_text() + key.read_text())
    return pem, alone


class Haproxy(Tunnel):
    name, package = "haproxy", "haproxy"

    def version(self):
        return output([need("haproxy"), "-v"]).splitlines()[0].split(" - ")[0]

    def config(self, lab, name, listen, own, to, other):
        named = " init-addr last,libc,none resolvers system" if to[0].endswith(".test") else ""
        text = f"""global
  log stdout format raw local0
  nbthread 2
resolvers system
  {"parse-resolv-conf" if named else ""}
  resolve_retries 1
  timeout resolve 1s
  timeout retry 1s
defaults
  mode tcp
  log global
  option tcplog
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  retries 1
  option clitcpka
  option srvtcpka
  srvtcpka-idle 10s
  srvtcpka-intvl 5s
  srvtcpka-cnt 3
listen app
  bind {listen[0]}:{listen[1]}{own}
  server app {to[0]}:{to[1]}{named}{other}
"""
        return [need("haproxy"), "-W", "-db", "-f", lab.write(f"{name}.cfg", text)]

    def near(self, lab, listen, link):
        pem, ca = certificate(lab, "near")[0], certificate(lab, "far")[1]
        return self.config(lab, "near", listen, "", link, f" ssl verify required crt {pem} ca-file {ca}")

    def far(self, lab, listen, to):
        pem, ca = certificate(lab, "far")[0], certificate(lab, "near")[1]
        return self.config(lab, "far", (lab.far.address, listen[1]), f" ssl verify required crt {pem} ca-file {ca}", to, "")


class Socat(Tunnel):
    name, package = "socat", "socat"

    def version(self):
        return output([need("socat"), "-V"]).splitlines()[1].split(" on ")[0]

    def pair(self, listen, to):
        alive = "nodelay,keepalive,keepidle=10,keepintvl=5,keepcnt=3"
        return [need("socat"), "-d", "-d", "-b", "65536", "-t", "60",
                f"TCP-LISTEN:{listen[1]},bind={listen[0]},fork,reuseaddr,backlog=4096,oobinline,{alive}",
                f"TCP:{to[0]}:{to[1]},connect-timeout=5,oobinline,{alive}"]

    def near(self, lab, listen, link):
        return self.pair(listen, link)

    def far(self, lab, listen, to):
        return self.pair((lab.far.address, listen[1]), to)


class Stunnel(Tunnel):
    name, package = "stunnel", "stunnel4"

    def version(self):
        text = output([need("stunnel"), "-version"])
        return text[text.index("stunnel"):].split(" on ")[0]

    def config(self, lab, name, listen, to, own, other, client):
        pem, trusted = certificate(lab, own)[0], certificate(lab, other)[1]
        alive = "\n".join(
            f"socket = {side}:{option}"
            for side in "lr"
            for option in ("TCP_NODELAY=1", "SO_KEEPALIVE=1", "TCP_KEEPIDLE=10", "TCP_KEEPINTVL=5", "TCP_KEEPCNT=3")
        )
        text = f"""foreground = yes
debug = info
pid =
{alive}
[app]
client = {client}
accept = {listen[0]}:{listen[1]}
connect = {to[0]}:{to[1]}
cert = {pem}
CAfile = {trusted}
verifyPeer = yes
delay = yes
TIMEOUTconnect = 5
"""
        return [need("stunnel"), lab.write(f"{name}.conf", text)]

    def near(self, lab, listen, link):
        return self.config(lab, "near", listen, link, "near", "far", "yes")

    def far(self, lab, listen, to):
        return self.config(lab, "far", (lab.far.address, listen[1]), to, "far", "near", "no")


def output(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Broken(f"{command[0]} failed: {done.stderr.strip()[-300:]}")
    return (done.stdout + done.stderr).strip() if not done.stdout.strip() else done.stdout.strip()


ALL = {tunnel.name: tunnel for tunnel in (Direct(), Ferry(), Haproxy(), Socat(), Stunnel())}
