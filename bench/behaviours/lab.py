"""Three hosts in a row, as network namespaces: near ── far ── app. The client and the near tunnel are on `near`.

Without namespaces all three are this machine's loopback, and the rows that break the network are skipped.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
START_TIMEOUT = 20
LIBC = ctypes.CDLL(None, use_errno=True)


class Broken(Exception):
    """What was seen is not what the row expects."""


class Unavailable(Exception):
    """A row cannot be tried with this tunnel or on this machine."""


def expect(truth, otherwise):
    if not truth:
        raise Broken(otherwise)


class Host:
    """One network namespace. Within `with host:` this thread, and what it starts, is on that host."""

    def __init__(self, address, namespace):
        self.address, self.namespace = address, namespace
        self._stack, self._held = [], []

    def __enter__(self):
        if self.namespace is not None:
            self._stack.append(current_namespace())
            set_namespace(self.namespace)

    def __exit__(self, *_):
        if self.namespace is not None:
            before = self._stack.pop()
            set_namespace(before)
            os.close(before)

    def run(self, command, **more):
        with self:
            done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=False, **more)
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")
        return done.stdout

    def drop(self, rule):
        """Silently drops what `rule` matches on its way in, until [`Host.undrop`]."""
        rules = [
            "table ip vanish",
            "delete table ip vanish",
            "table ip vanish {",
            f"chain in {{ type filter hook prerouting priority -300; {rule} drop; }}",
            "}",
        ]
        self.run("nft -f -", input="\n".join(rules) + "\n")

    def undrop(self):
        self.run("nft delete table ip vanish")

    def listen(self, port=0, backlog=1024):
        with self:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address, port))
            listener.listen(backlog)
            listener.settimeout(START_TIMEOUT)
            return listener

    def connect(self, address, timeout=START_TIMEOUT):
        with self:
            return socket.create_connection(address, timeout)

    def free_port(self, address=None):
        """A port that nothing else is given until [`Host.close`]: one server may bind it, and the next one again."""
        with self:
            held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((address or self.address, 0))
        self._held.append(held)
        return held.getsockname()[1]

    def close(self):
        for held in self._held:
            held.close()


def current_namespace():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def set_namespace(descriptor):
    if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def new_namespace():
    home = current_namespace()
    if LIBC.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    made = current_namespace()
    set_namespace(home)
    return made


class Process:
    """A program with its log. Its whole process group is signalled and ended."""

    def __init__(self, child, log):
        self.child, self.log = child, log

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)

    def stop(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.child.wait(3)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.child.wait()

    def log_tail(self):
        lines = self.log.read_text(errors="replace").splitlines() if self.log else []
        return " / ".join(lines[-3:])


class Lab:
    """The hosts, a directory for files, and everything that was started, which ends with it."""

    def __init__(self, private):
        self.private = private
        self._exit = contextlib.ExitStack()
        self.dir = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="behaviours-")))
        if private:
            self.near, self.far, self.app = self._three_hosts()
        else:
            self.near = self.far = self.app = Host("127.0.0.1", None)
        for host in (self.near, self.far, self.app):
            self.on_exit(host.close)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self._exit.__exit__(*error)

    def _three_hosts(self):
        near = Host("10.77.1.1", current_namespace())
        far = Host("10.77.1.2", new_namespace())
        app = Host("10.77.2.2", new_namespace())
        place = f"/proc/{os.getpid()}/fd/"
        near.run(f"""
            ip link set lo up
            ip link add to-far type veth peer name to-near
            ip link set to-near netns {place}{far.namespace}
            ip address add 10.77.1.1/24 dev to-far
            ip link set to-far up
            ip route add default via 10.77.1.2""", pass_fds=[far.namespace])
        far.run(f"""
            ip link set lo up
            ip address add 10.77.1.2/24 dev to-near
            ip link set to-near up
            ip link add to-app type veth peer name to-far
            ip link set to-far netns {place}{app.namespace}
            ip address add 10.77.2.1/24 dev to-app
            ip link set to-app up
            echo 1 > /proc/sys/net/ipv4/ip_forward""", pass_fds=[app.namespace])
        app.run("""
            ip link set lo up
            ip address add 10.77.2.2/24 dev to-far
            ip link set to-far up
            ip route add default via 10.77.2.1""")
        return near, far, app

    def on_exit(self, action, *arguments):
        self._exit.callback(action, *arguments)

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return path

    def start(self, host, name, command, settings):
        """Starts a program on a host as `settings` say."""

        def limit():
            if settings.files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (settings.files, settings.files))

        environment = settings.environment(self) if settings.environment else {}
        log, output = None, None
        if settings.output == "file":
            log = self.dir / f"{name}.log"
            output = log.open("wb")
        elif settings.output == "full":
            output = open("/dev/full", "wb")
        else:
            reader, writer = os.pipe()
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
            self.on_exit(os.close, reader)
            output = os.fdopen(writer, "wb")
        with output, host:
            child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                cwd=self.dir, env={**os.environ, **environment}, start_new_session=True, preexec_fn=limit,
            )
        process = Process(child, log)
        self.on_exit(process.stop)
        return process

    def wait_for_port(self, host, address, process):
        """Until somebody accepts there."""
        until = time.monotonic() + START_TIMEOUT
        while time.monotonic() < until:
            if process.child.poll() is not None:
                raise Broken(f"it ended at its start: {process.log_tail()}")
            # Looking at the kernel's table makes no connection that the tunnel would carry to the application.
            if any(line.split()[3].endswith(f":{address[1]}") for line in host.run("ss -Htln").splitlines()):
                return
            time.sleep(0.05)
        raise Broken(f"nothing listens on {address}: {process.log_tail()}")
