"""Real clients and servers through a pair of Ferry tunnels whose links are cut meanwhile: one line for each claim.

    python3 bench/behaviours/clients.py            all claims, two at a time; fails if one does not hold that is no known gap
    python3 bench/behaviours/clients.py iperf3 ab  some

Each claim has namespaces of its own, with the client and the near tunnel on one host, the far tunnel on a second, the server
on a third. Of Debian it needs what `.ci/suites/clients` installs.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from gaps import known_gaps
from isolation import isolation
from lab import Broken, Lab, Unavailable, expect
from rows.webapp import Webapps
from stage import Stage
from tunnels import ALL, Settings, need

BOUND = 110
CLAIMS = {}


def claim(text):
    def add(check):
        CLAIMS[check.__name__.replace("_", "-")] = (text, check)
        return check

    return add


class Site:
    """A server's host and port, the tunnel in front of it, and a client's commands."""

    def __init__(self, lab):
        self.lab, self.port, self.stage = lab, lab.app.free_port(), None

    def serve(self, name, command):
        process = self.lab.start(self.lab.app, name, command, Settings())
        self.lab.wait_for_port(self.lab.app, (self.lab.app.address, self.port), process)

    def open_tunnel(self, environment=None):
        settings = Settings(environment=environment)
        running = ALL["ferry"].start(self.lab, (self.lab.app.address, self.port), settings)
        self.stage = Stage(self.lab, running, None)
        return str(running.address[1])

    def far_log(self):
        return self.stage.running.far.log.read_text(errors="replace")

    def client(self, *command, allowed=(0,), within=80):
        """What a client's program on the near host prints."""
        with self.lab.near:
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=within,
                                  check=False, cwd=self.lab.dir)
        expect(done.returncode in allowed, f"{command[0]}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout

    @contextlib.contextmanager
    def cuts(self, every=0.7):
        """Meanwhile every link is cut again and again, each third time for a second of silence before."""
        over, count = threading.Event(), [0]

        def cut():
            while not over.wait(every):
                if count[0] % 3 == 2:
                    self.stage.lose_links_at_far()
                self.stage.cut_links()
                count[0] += 1

        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            yield count
        finally:
            over.set()
            cutter.join()


REFUSING_SERVER = """
import socket, sys
answer = b"HTTP/1.1 413 Content Too Large\\r\\nContent-Length: 9\\r\\nConnection: close\\r\\n\\r\\ntoo large"
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(answer)
    connection.close()
"""


@claim("curl: a server that answers 413 and closes is heard, 20 of 20 at 300 kB and 100 of 100 at 5 MB")
def curl(site):
    site.serve("refusing", [sys.executable, "-c", REFUSING_SERVER, site.port])
    port = site.open_tunnel()
    seen = {}
    for size, tries in ((300_000, 20), (5_000_000, 100)):
        body = site.lab.write(f"body-{size}", "x" * size)
        answers = [
            site.client("curl", "-s", "-w", "%{http_code}", "-m", "10", "-H", "Expect:", "-T", body,
                        f"http://127.0.0.1:{port}/", allowed=range(256))
            for _ in range(tries)
        ]
        seen[size] = tries - answers.count("too large413")
    expect(not any(seen.values()), f"not heard {seen}")


@claim("redis: 3,000 increments one after another and a benchmark, amid cuts: none lost, none doubled")
def redis(site):
    site.serve("redis", [need("redis-server"), "--port", site.port, "--save", "", "--protected-mode", "no", "--dir", site.lab.dir])
    port = site.open_tunnel()
    with site.cuts() as count:
        answers = site.client("redis-cli", "-p", port, "-r", 3000, "incr", "n").split()
        expect(answers == [str(number) for number in range(1, 3001)], f"{len(answers)} answers, the last {answers[-1:]}")
        shown = site.client("redis-benchmark", "-p", port, "-t", "set,get", "-n", 20000, "-c", 10, "-q")
        expect("SET:" in shown and "GET:" in shown, shown)
        return f"{count[0]} cuts"


@claim("ab: 3,000 requests with and 3,000 without keep-alive, amid cuts: none failed")
def ab(site):
    site.lab.write("index.html", "x" * 10_000)
    config = f"""daemon off; pid {site.lab.dir}/nginx.pid; error_log /dev/null; events {{}}
http {{ access_log off; server {{ listen {site.port}; root {site.lab.dir}; }} }}"""
    site.lab.dir.chmod(0o755)
    site.serve("nginx", [need("nginx"), "-p", site.lab.dir, "-c", site.lab.write("nginx.conf", config)])
    port = site.open_tunnel()
    with site.cuts() as count:
        for more in ([], ["-k"]):
            shown = site.client("ab", "-q", "-n", 3000, "-c", 20, *more, f"http://127.0.0.1:{port}/index.html")
            failed = re.search(r"Failed requests: +(\d+)", shown)
            complete = re.search(r"Complete requests: +(\d+)", shown)
            expect(failed and complete and (failed[1], complete[1]) == ("0", "3000"), shown[-400:])
            expect("Non-2xx" not in shown, shown[-400:])
        return f"{count[0]} cuts"


TOO_FAR_APART = "an earlier session is not here in time"


@claim("iperf3 --bidir -P 1: bytes in both directions, 20 of 20 whose connections' links were at most 20 ms apart")
def iperf3(site):
    site.serve("iperf3", [need("iperf3"), "-s", "-p", site.port])
    port = site.open_tunnel(environment=lambda _: {"FERRY_LOG": "info,ferry_tunnel::peer::arrivals=debug"})
    good, late, counted, until = 0, 0, 0, time.monotonic() + 85
    while counted < 20 and time.monotonic() < until:
        before, both = site.far_log().count(TOO_FAR_APART), False
        with contextlib.suppress(Broken, KeyError, json.JSONDecodeError, subprocess.TimeoutExpired):
            shown = site.client("iperf3", "-c", "127.0.0.1", "-p", port, "--bidir", "-P", 1, "-t", 1, "-J", within=8)
            end = json.loads(shown)["end"]
            both = end["sum_received"]["bytes"] > 0 and end["sum_received_bidir_reverse"]["bytes"] > 0
        # A machine that is too busy for the order is told apart by the far tunnel, which is the one to hold it.
        if not both and site.far_log().count(TOO_FAR_APART) > before:
            late += 1
            continue
        counted += 1
        good += both
    expect(good == counted, f"{good} of {counted}, and {late} whose links were more than 20 ms apart")
    expect(counted >= 10, f"only {counted} whose links were at most 20 ms apart, and {late} others")
    return f"{good} of {counted}, {late} others"


@claim("pgbench amid cuts: no transaction failed, and the books balance")
def pgbench(site):
    if os.getuid() != 0:
        raise Unavailable("postgres needs a user of its own, so this needs root")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise Unavailable("postgresql is not installed")
    home, binaries = site.lab.dir / "postgres", programs[-1]
    site.lab.dir.chmod(0o755)
    home.mkdir()
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    site.lab.near.run(f"chown postgres {home}")
    data = home / "data"
    site.client(*as_postgres, binaries / "initdb", "-A", "trust", "-D", data, "-U", "ferry", "--no-sync")
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all all trust\n")
    site.serve("postgres", [*as_postgres, binaries / "postgres", "-D", data, "-p", site.port, "-h", "*", "-k", home, "-F"])
    port = site.open_tunnel()
    to = ["-h", "127.0.0.1", "-p", port, "-U", "ferry"]
    for _ in range(40):
        with contextlib.suppress(Broken):
            site.client(binaries / "createdb", *to, "bank")
            break
        time.sleep(0.25)
    site.client(binaries / "pgbench", *to, "-i", "-q", "bank")
    with site.cuts() as count:
        shown = site.client(binaries / "pgbench", *to, "-c", 4, "-j", 2, "-T", 15, "-n", "bank")
    processed = re.search(r"transactions actually processed: (\d+)", shown)
    expect(processed and "failed transactions: 0 " in shown, shown[-400:])
    sums = site.client(binaries / "psql", *to, "-tAc", "select (select count(*) from pgbench_history), (select sum(delta) from "
                       "pgbench_history), (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches)",
                       "bank").strip().split("|")
    expect(sums[0] == processed[1] and len(set(sums[1:])) == 1, f"{processed[1]} transactions, books {sums}")
    return f"{processed[1]} transactions, {count[0]} cuts"


@claim("ssh and scp amid cuts: 30 MB there and back and 200,000 lines, all equal")
def ssh(site):
    if os.getuid() != 0:
        raise Unavailable("sshd needs root")
    site.lab.dir.chmod(0o755)
    for name in ("host", "user"):
        site.client("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", site.lab.dir / name)
    config = f"""Port {site.port}
HostKey {site.lab.dir}/host
AuthorizedKeysFile {site.lab.dir}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""
    Path("/run/sshd").mkdir(exist_ok=True)
    site.serve("sshd", [need("sshd"), "-D", "-e", "-f", site.lab.write("sshd_config", config)])
    port = site.open_tunnel()
    options = ["-F", "none", "-i", site.lab.dir / "user", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes",
               "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    sent, stored, back = (site.lab.dir / name for name in ("sent", "stored", "back"))
    sent.write_bytes(random.randbytes(30_000_000))
    with site.cuts() as count:
        site.client("scp", *options, "-P", port, sent, f"root@127.0.0.1:{stored}")
        site.client("scp", *options, "-P", port, f"root@127.0.0.1:{stored}", back)
        lines = site.client("ssh", *options, "-p", port, "root@127.0.0.1", "seq 1 200000")
    sums = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (sent, stored, back)}
    expect(len(sums) == 1, "the files differ")
    expect(lines.split() == [str(number) for number in range(1, 200_001)], "the lines differ")
    return f"{count[0]} cuts"


SOCKETS_SERVER = """
import asyncio, sys, websockets
async def echo(socket, *_):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, "0.0.0.0", int(sys.argv[1])):
        await asyncio.Future()
asyncio.run(main())
"""

SOCKETS_CLIENT = """
import asyncio, sys, time, websockets
async def main():
    async with websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}") as socket:
        number, until = 0, time.monotonic() + 15
        while time.monotonic() < until:
            await socket.send(str(number))
            answer = await socket.recv()
            assert answer == str(number), (answer, number)
            number += 1
            await asyncio.sleep(0.005)
        print(number)
asyncio.run(main())
"""


@claim("Python websockets amid cuts: 15 s of messages on one connection, each answered in its turn")
def websockets(site):
    # Debian's packages belong to Debian's Python.
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import websockets"], capture_output=True, check=False).returncode != 0:
        raise Unavailable("python3-websockets is not installed")
    site.serve("websockets", [python, "-c", SOCKETS_SERVER, site.port])
    port = site.open_tunnel()
    with site.cuts() as count:
        number = int(site.client(python, "-c", SOCKETS_CLIENT, port))
    expect(number > 100, f"only {number} messages")
    return f"{number} messages, {count[0]} cuts"


HOOKS = """
import subprocess, sys, time
def on_trigger(payload, headers):
    number = payload["number"]
    # Not UTF-8, an endless line, and a child that outlives the call with the output still open.
    subprocess.run(["printf", "\\\\377\\\\n"], check=True)
    if number == 5:
        subprocess.run(["head", "-c", "50000000", "/dev/zero"], check=True)
    subprocess.Popen(["sh", "-c", "sleep 3; echo late"])
    print("number", number)
    return payload
"""


@claim("hooks whose children print what is no UTF-8, 50 MB without a line's end, and live on: all 40 messages arrive, none dead")
def hooks(site):
    script = site.lab.write("app.py", HOOKS)
    settings = Settings(environment=lambda _: {"FERRY_HOOKS": str(script)})
    apps = Webapps(Stage(site.lab, None, None), settings, site.lab.dir)
    apps.settings = Settings()
    apps.start_far()
    statuses = [apps.trigger({"number": number}) for number in range(40)]
    expect(set(statuses) == {202}, f"answered {sorted(set(statuses))}")
    numbers = apps.arrived(40, 20)
    expect(numbers == list(range(40)), f"{len(numbers)} of 40 arrived, or not in order")
    time.sleep(4)
    expect(apps.trigger({"number": 40}) == 202, "nothing is accepted after the children have ended")


def check_here(name):
    """One claim in this process: how it went, as the line's beginning and the rest."""
    text, check = CLAIMS[name]
    try:
        with Lab(private=True) as lab:
            note = check(Site(lab))
    except Unavailable as reason:
        return "skipped", f"{text} ({reason})"
    except (Broken, OSError, subprocess.TimeoutExpired) as error:
        return "BROKEN", f"{text}: {error}"
    return "holds", text + (f" ({note})" if note else "")


def check_apart(prefix, name):
    command = [*prefix, sys.executable, __file__, "--here", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return "BROKEN", f"{CLAIMS[name][0]}: not over within {BOUND} s"
    except (IndexError, json.JSONDecodeError):
        return "BROKEN", f"{CLAIMS[name][0]}: the check itself failed: {done.stderr.strip()[-500:]}"


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--here"]:
        print(json.dumps(check_here(arguments[1])), flush=True)
        os._exit(0)
    prefix = isolation()
    if not prefix:
        print("no network namespaces here, so no claim is checked")
        return
    names, started = arguments or list(CLAIMS), time.monotonic()
    if unknown := set(names) - CLAIMS.keys():
        sys.exit(f"no such claim: {', '.join(sorted(unknown))} (known: {', '.join(CLAIMS)})")
    gaps, broken = {gap["claim"]: gap["reason"] for gap in known_gaps("claim")}, 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, (verdict, text) in zip(names, pool.map(lambda name: check_apart(prefix, name), names)):
            if name in gaps:
                text = f"{text} (known: {gaps[name]})"
                broken += verdict == "holds"
                verdict = {"holds": "HOLDS NOW", "BROKEN": "gap"}.get(verdict, verdict)
            else:
                broken += verdict == "BROKEN"
            print(f"{verdict:<9} {name:<10} {text}", flush=True)
    print(f"{len(names)} claims in {time.monotonic() - started:.0f} s, {broken} not as expected")
    sys.exit(bool(broken))


main()
