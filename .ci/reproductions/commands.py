"""Commands as a new user types them: what the pages quote, what errors say, keys that everybody has, bundles twice."""

import base64
import re
import socket
import stat

from local import FERRY, ROOT, free_port
from reproductions import expect, row

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


@row("every command of ferry that a page shows exists, with its flags")
def quoted(lab):
    helps, count = {}, 0
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"```(?:sh|bash|)\n(.*?)```", text, re.S) + re.findall(r"`(ferry [^`]+)`", text)
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                if not (found := re.match(r"\s*(?:[A-Z_]+=\S+ )*ferry ([a-z]+)(.*)", line.split("#")[0])):
                    continue
                command, rest = found.groups()
                if command not in helps:
                    helps[command] = lab.output(FERRY, command, "--help")
                for flag in re.findall(r"\s(--[a-z-]+)", rest.split(" -- ")[0]):
                    expect(flag in helps[command], f"{page.name}: ferry {command} has no {flag}")
                count += 1
    expect(count > 20, f"only {count} commands found")
    return f"{count} commands of {len(helps)} kinds in {len(PAGES)} pages"


@row("an error says once what is wrong, with what it is about: each command without what it needs")
def errors(lab):
    nobody, seen = free_port(), 0
    url = f"http://127.0.0.1:{nobody}"
    lab.write("file", "")
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    (lab.path / "own").mkdir()
    key = lab.key("own")
    lab.write(
        "taken.yaml",
        f'name: a\nidentity: own.key\nlisten: 127.0.0.1:{port}\npeers: [{{name: b, keys: ["{lab.key("b")}"]}}]\n',
    )
    for words, about in (
        (["tunnel", "--config", "missing.yaml"], "missing.yaml"),
        (["tunnel", "--config", "own"], "own"),
        (["pubkey", "missing.key"], "missing.key"),
        (["pubkey", "file"], "file"),
        (["keygen", "--out", "missing/a.key"], "missing/a.key"),
        (["keygen", "--out", "own.key"], "own.key"),
        (["send", url, "--message", "{}", "--wait", "1s"], str(nobody)),
        (["output", url], str(nobody)),
        (["status", url], str(nobody)),
        (["bundle", "missing.yaml", "--out", "x"], "missing.yaml"),
        (["deploy", "missing"], "missing"),
        (["doctor", "--config", "missing.yaml"], "missing.yaml"),
        (["initiator", "--listen", f"127.0.0.1:{port}", "--data", "d", "--peer", "ws://127.0.0.1:1/ws"], str(port)),
        (["terminator", "--listen", f"127.0.0.1:{port}", "--data", "e"], str(port)),
        (["tunnel", "--config", "taken.yaml"], str(port)),
        (["terminator", "--listen", "127.0.0.1:0", "--data", "file"], "file"),
        (["terminator", "--listen", "127.0.0.1:0", "--hooks", "missing.py"], "missing.py"),
        (["join", "nonsense"], "token"),
    ):
        text = lab.output(FERRY, *words, allowed=(1, 2, 78))
        expect(about in text, f"{words}: {about} is not in {text}")
        said = [line for line in text.splitlines() if not re.match(r"\S+Z\s+(INFO|WARN)", line)]
        for line in said:
            clauses = [clause.strip() for clause in re.split(r": |; ", line) if len(clause.strip()) > 12]
            expect(len(clauses) == len(set(clauses)), f"{words} says it twice: {line}")
            expect(line.count("os error") <= 1, f"{words} says it twice: {line}")
        seen += 1
    expect(key.startswith("ferry:pub:"), key)
    return f"{seen} commands"


def pem(seed):
    der = bytes.fromhex("302e020100300506032b657004220420") + seed
    return f"-----BEGIN {'PRIVATE'} KEY-----\n{base64.b64encode(der).decode()}\n-----END {'PRIVATE'} KEY-----\n"


@row("a key that everybody has is refused by every command that reads one, and none is in the repository")
def published(lab):
    # Of RFC 8032 and RFC 8410, one byte again and again, and bytes counted up.
    standards = [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842",
    ]
    seeds = [
        bytes([1]) * 32,
        bytes([2]) * 32,
        bytes(32),
        bytes(range(32)),
        bytes([255]) * 32,
        *map(bytes.fromhex, standards),
    ]
    lab.key("b")
    for number, seed in enumerate(seeds):
        path = lab.write(f"{number}.key", pem(seed))
        path.chmod(0o600)
        lab.write(
            f"{number}.yaml",
            f'name: a\nidentity: {number}.key\nlisten: 127.0.0.1:0\npeers: [{{name: b, keys: ["{lab.key("b")}"]}}]\n',
        )
        for words in (
            ["tunnel", "--check", "--config", f"{number}.yaml"],
            ["tunnel", "--config", f"{number}.yaml"],
            ["doctor", "--config", f"{number}.yaml"],
            ["pubkey", f"{number}.key"],
        ):
            text = lab.output(FERRY, *words, allowed=None)
            expect("published" in text, f"{words} of seed {seed[:4].hex()}…: {text[-300:]}")
    for path in ROOT.rglob("*"):
        if (
            {"target", ".git", "node_modules"} & set(path.relative_to(ROOT).parts)
            or not path.is_file()
            or path.stat().st_size > 1 << 20
        ):
            continue
        text = path.read_bytes()
        expect(
            not re.search(rb"BEGIN (\w+ )?PRIVATE KEY-----\\?n?\s*[A-Za-z0-9+/]{40}", text), f"a private key in {path}"
        )
    return f"{len(seeds)} keys, four commands each"


def rendered(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@row("a bundle that is rendered twice is the same, is applied without a change, and a changed hook changes no pod")
def bundles(lab):
    for blueprint in sorted((ROOT / "blueprints").glob("*.yaml")) + sorted(
        (ROOT / "blueprints").glob("*/blueprint.yaml")
    ):
        out = lab.path / blueprint.stem / blueprint.parent.name
        out.parent.mkdir(exist_ok=True)
        lab.output(FERRY, "bundle", blueprint, "--out", out)
        first = rendered(out)
        lab.output(FERRY, "bundle", blueprint, "--out", out)
        expect(
            rendered(out) == first,
            f"{blueprint}: a second run changes {[n for n, t in rendered(out).items() if first.get(n) != t]}",
        )
        for name, text in first.items():
            if name.endswith((".yaml", ".yml")):
                expect(b"stringData" not in text and b"ingress: []" not in text, f"{name}: differs at every apply")
        hooks = [name for name in first if name.endswith("app.py")]
        for name in hooks:
            with open(out / name, "a") as file:
                file.write("\n# changed\n")
        lab.output(FERRY, "bundle", blueprint, "--out", out)
        changed = {name for name, text in rendered(out).items() if first.get(name) != text} - set(hooks)
        for name in changed:
            strip = lambda text: re.sub(rb"(?s)app\.py: \|.*?(?=\n---|\Z)", b"", text)  # noqa: E731
            expect(strip((out / name).read_bytes()) == strip(first[name]), f"{name} changes with a hook")
    return f"{len(first)} files, hooks {hooks}"


@row("ferry init fixes no address that only one machine knows, and a dry run of a deployment needs no cluster")
def starters(lab):
    lab.output(FERRY, "init")
    text = (lab.path / "blueprint.yaml").read_text()
    live = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    expect(not any("k3d.internal" in line for line in live), "host.k3d.internal")
    (lab.path / "blueprint.yaml").unlink()
    lab.output(FERRY, "init", "--k3d")
    lab.output(FERRY, "bundle", "blueprint.yaml", "--out", "bundle")
    said = lab.output(FERRY, "deploy", "bundle", "--dry-run", PATH=f"{lab.path}:/usr/bin:/bin")
    expect("kubectl" in said, said)
    return f"{len(said.splitlines())} lines of a dry run"


@row("what is made under a umask of 0 can be changed by nobody else: keys, state, stores, bundles")
def modes(lab):
    lab.path.chmod(0o700)
    script = f"""umask 0
{FERRY} keygen --out one.key >/dev/null
{FERRY} init >/dev/null 2>&1 && {FERRY} init --k3d >/dev/null 2>&1
rm blueprint.yaml; {FERRY} init --k3d >/dev/null 2>&1
{FERRY} bundle blueprint.yaml --out bundle >/dev/null
timeout 2 {FERRY} terminator --listen 127.0.0.1:0 --data data >/dev/null
true"""
    lab.output("sh", "-c", script)
    made = [path for path in lab.path.rglob("*") if not path.is_symlink()]
    loose = [
        f"{path.name} {path.stat().st_mode & 0o777:o}"
        for path in made
        if path.stat().st_mode & stat.S_IWOTH and path.name != "blueprint.yaml"
    ]
    expect(len(made) > 20 and not loose, f"{loose}")
    return f"{len(made)} files and directories"
