"""Holds the Helm chart to the bundles: `.ci/chart.py BUNDLE...`, each rendered with its chart.

HELM and FERRY name the programs. Ends with 1 and what it has found.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

HELM, FERRY = os.environ["HELM"], os.environ["FERRY"]
VERSIONS = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
# Helm's own: it sets the first by itself, whatever a chart says.
LABELS_OF_HELM = ["app.kubernetes.io/managed-by", "helm.sh/chart"]

findings = []


def run(*command, seconds=300):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds)


def helm(verb, chart, values, *more, version="1.33.0"):
    files = [part for path in values for part in ("--values", path)]
    what = ["release", chart] if verb == "template" else [chart]
    kubernetes = ["--kube-version", version] if verb == "template" else []
    return run(HELM, verb, *what, *files, *kubernetes, *more)


def by_name(documents):
    objects = [document for document in documents if document]
    return {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]): one for one in objects}


def without_helms_labels(document):
    labels = document["metadata"]["labels"]
    for label in LABELS_OF_HELM:
        labels.pop(label, None)
    return document


def differences(bundle, chart, path=""):
    """Each field that is not the same in both."""
    if isinstance(bundle, dict) and isinstance(chart, dict):
        for key in sorted(bundle.keys() | chart.keys()):
            if key not in bundle or key not in chart:
                yield f"{path}.{key}: only in the {'bundle' if key in bundle else 'chart'}"
            else:
                yield from differences(bundle[key], chart[key], f"{path}.{key}")
    elif isinstance(bundle, list) and isinstance(chart, list) and len(bundle) == len(chart):
        for at, (one, other) in enumerate(zip(bundle, chart)):
            yield from differences(one, other, f"{path}[{at}]")
    elif type(bundle) is not type(chart) or bundle != chart:
        yield f"{path}: {bundle!r} in the bundle, {chart!r} in the chart"


def of_bundle(bundle, pod):
    """What `kubectl apply -k POD` would apply, and the addresses that the deploy script gives to the pod."""
    kustomization = yaml.safe_load((bundle / pod / "kustomization.yaml").read_text())
    documents = []
    for name in kustomization["resources"]:
        documents += yaml.safe_load_all((bundle / pod / name).read_text())
    for generator in kustomization.get("configMapGenerator", []):
        data = {Path(name).name: (bundle / pod / name).read_text() for name in generator["files"]}
        metadata = {key: generator[key] for key in ("name", "namespace")}
        metadata["labels"] = generator["options"]["labels"]
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    objects = by_name(documents)
    namespace = next(name for kind, _, name in objects if kind == "Namespace")
    return objects, addresses_by_script(bundle, pod, namespace)


def addresses_by_script(bundle, pod, namespace):
    cluster = yaml.safe_load((bundle / "chart" / f"values-{pod}.yaml").read_text())["cluster"]
    script = next(bundle / name for name in (f"deploy-{cluster}.sh", "deploy.sh") if (bundle / name).exists())
    addresses = {}
    for line in run("bash", script, "--dry-run").stdout.splitlines():
        if not line.startswith("+ kubectl") or "tunnel-addresses" not in line or f"--namespace {namespace} " not in line:
            continue
        # In bash's own words, as it quotes what has more than one line.
        words = run("bash", "-c", f"printf '%s\\0' {line.removeprefix('+ ')}").stdout.split("\0")
        # As a pod with one peer is told, and as one with several is.
        literals = [word.removeprefix("--from-literal=") for word in words if word.startswith("--from-literal=")]
        found = dict(literal.split("=", 1) for literal in literals)
        if "--patch" in words:
            found = json.loads(words[words.index("--patch") + 1])["data"]
        addresses.update({name: value for name, value in found.items() if not name.endswith(".from")})
    return addresses


def compare(bundle, pod, rendered):
    expected, addresses = of_bundle(bundle, pod)
    chart = by_name(yaml.safe_load_all(rendered))
    [told] = [one for (kind, _, name), one in chart.items() if (kind, name) == ("ConfigMap", "tunnel-addresses")] or [{}]
    if told.get("data", {}) != addresses:
        findings.append(f"{bundle.name}/{pod}: addresses {addresses} by the script, {told.get('data')} in the chart")
    chart = {key: one for key, one in chart.items() if one is not told}
    for key in sorted(expected.keys() ^ chart.keys(), key=str):
        findings.append(f"{bundle.name}/{pod}: {key} is only in the {'bundle' if key in expected else 'chart'}")
    for key in expected.keys() & chart.keys():
        both = [without_helms_labels(one) for one in (expected[key], chart[key])]
        findings.extend(f"{bundle.name}/{pod}: {key[0]} {key[2]}{found}" for found in differences(*both))
    return len(expected)


def check_tunnel(name, rendered, scratch):
    """What stands in the ConfigMap is a tunnel.yaml."""
    for document in yaml.safe_load_all(rendered):
        if document and document["kind"] == "ConfigMap" and "tunnel.yaml" in document["data"]:
            key = scratch / "identity.key"
            if not key.exists():
                run(FERRY, "keygen", "--out", key)
            text = document["data"]["tunnel.yaml"].replace("/etc/ferry/identity/identity.key", str(key))
            (scratch / "tunnel.yaml").write_text(text)
            checked = run(FERRY, "tunnel", "--config", scratch / "tunnel.yaml", "--check")
            if checked.returncode:
                findings.append(f"{name}: {checked.stderr}")


def without_gateway_api(text):
    """The Gateway API is no part of Kubernetes, and kubernetes-validate has no schema of it."""
    documents = re.split(r"^---$", text, flags=re.M)
    return "---".join(one for one in documents if "kind: HTTPRoute" not in one)


def validate(files):
    def by(version):
        return run(".ci/.venv/bin/kubernetes-validate", "--strict", "-k", version, *files)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = list(pool.map(by, VERSIONS))
    for version, told in zip(VERSIONS, answers):
        if told.returncode or "WARN" in told.stdout + told.stderr:
            findings.append(f"for Kubernetes {version}: {told.stdout}{told.stderr}")


def check_bundles(bundles, scratch):
    pods = objects = 0
    files = []
    for bundle in bundles:
        chart = bundle / "chart" / "ferry"
        for values in sorted(bundle.glob("chart/values-*.yaml")):
            pod = values.stem.removeprefix("values-")
            given = [values, bundle / "chart" / f"secrets-{pod}.yaml"]
            hooks = bundle / pod / "app" / "app.py"
            more = ["--set-file", f"web_app.hooks={hooks}"] if hooks.exists() else []
            linted = helm("lint", chart, given, "--strict", *more)
            rendered = helm("template", chart, given, *more)
            if linted.returncode or rendered.returncode:
                findings.append(f"{bundle.name}/{pod}: {linted.stdout}{rendered.stderr}")
                continue
            pods, objects = pods + 1, objects + compare(bundle, pod, rendered.stdout)
            check_tunnel(f"{bundle.name}/{pod}", rendered.stdout, scratch)
            if helm("template", chart, given, *more, version="1.37.0").stdout != rendered.stdout:
                findings.append(f"{bundle.name}/{pod}: renders differently for another Kubernetes")
            files.append(scratch / f"{bundle.name}-{pod}.yaml")
            files[-1].write_text(without_gateway_api(rendered.stdout))
    print(f"as the bundles have them: {objects} objects of {pods} pods")
    return files


def of_page(scratch):
    """The values that docs/chart.md shows, each with the key that its peers would have; and whether it is whole."""
    public = run(FERRY, "keygen", "--out", scratch / "far.key").stdout.strip()
    blocks = re.findall(r"^```yaml\n# (values-[a-z0-9-]+\.yaml).*?\n(.*?)^```", Path("docs/chart.md").read_text(), re.S | re.M)
    for name, text in blocks:
        path = scratch / name
        path.write_text(re.sub(r"ferry:pub:[A-Z-]+", public, text))
        yield path


def check_page(scratch):
    files = []
    for values in of_page(scratch):
        rendered = helm("template", "contrib/chart/ferry", [values])
        linted = helm("lint", "contrib/chart/ferry", [values], "--strict")
        if rendered.returncode or linted.returncode:
            findings.append(f"docs/chart.md, {values.name}: {rendered.stderr}{linted.stdout}")
            continue
        check_tunnel(values.name, rendered.stdout, scratch)
        files.append(scratch / f"rendered-{values.name}")
        files[-1].write_text(rendered.stdout)
    if not files:
        findings.append("docs/chart.md shows no values")
    print(f"of docs/chart.md: {len(files)} files of values")
    return files


GATEWAY = """
cluster: a
image: ferry:0.1.0
identity: {secret: key}
peers: [{name: b/gateway, keys: ["ferry:pub:x"], addresses: ["b.example.com:30200"]}]
egress: [{service: db, peer: b/gateway, port: 5432}]
"""
WEB_APP = """
template: ws-terminator
cluster: b
image: ferry-python:0.1.0
identity: {secret: key}
service: {type: LoadBalancer}
peers: [{name: a/initiator, keys: ["ferry:pub:x"]}]
ingress: [{service: t, forward: "127.0.0.1:8000", allow: [a/initiator], proxy_protocol: v2}]
"""
# Values to begin with, values over them, and what must be said of both.
REFUSED = [
    ("{}", "", "identity: give `secret`"),
    ("{}", "", "image: give the image"),
    ("{}", "", "cluster: say what this cluster is called"),
    (GATEWAY, "identity: {pem: x}", "identity: give `secret` or `pem`, not both"),
    (GATEWAY, "identity: {secret: '', pem: x}", "identity.pem: not a private key"),
    (GATEWAY, "tunel: {drain: 1s}", "Additional property tunel is not allowed"),
    (GATEWAY, "tunnel: {dran: 1s}", "tunnel: Additional property dran is not allowed"),
    (GATEWAY, "tunnel: {drain: soon}", "tunnel.drain: Does not match pattern"),
    (GATEWAY, "tunnel: {limits: {sessions: 0}}", "tunnel.limits.sessions: Must be greater than or equal to 1"),
    (GATEWAY, "template: sidecar", "template must be one of the following"),
    (GATEWAY, "service: {type: Ingress}", "service.type must be one of the following"),
    (GATEWAY, "replicas: 0", "replicas: Must be greater than or equal to 1"),
    (GATEWAY, "replicas: 33", "replicas: Must be less than or equal to 32"),
    (GATEWAY, "replicas: many", "replicas: Invalid type. Expected: integer, given: string"),
    (GATEWAY, f"{{replicas: 2, name: {'g' * 55}}}", "would have a name of more than 63 characters"),
    (GATEWAY, "{replicas: 2, identity: {secret: ''}}", "identity: give `secret`"),
    (WEB_APP, "replicas: 2", "replicas: only a gateway has several"),
    (GATEWAY, "service: {port: 70000}", "service.port: Must be less than or equal to 65535"),
    (GATEWAY, "{service: {type: LoadBalancer}, listen: {tcp: false}}", "it leads to a tunnel that does not listen"),
    (GATEWAY, "websocket: {host: ferry.example.com}", "websocket.host: it leads to a tunnel that does not listen"),
    (GATEWAY, "websocket: {host: ferry.example.com, tls_secret: x}", "websocket: Additional property tls_secret"),
    (GATEWAY, "egress: [{peer: b/gateway}]", "egress.0: service is required"),
    (GATEWAY, "egress: [{service: db, peer: c/gateway, port: 1}]", "egress[0].peer: c/gateway is not one of `peers`"),
    (GATEWAY, "egress: [{service: db, peer: b/gateway}]", "egress[0]: give the `port`"),
    (GATEWAY, "ingress: [{service: db, forward: 'db:1', allow: [c/x]}]", "ingress[0].allow: c/x is not one of `peers`"),
    (GATEWAY, "peers: [{name: b/gateway}]", "peers.0: keys is required"),
    (GATEWAY, "peers: [{name: b/gateway, keys: [nonsense]}]", "peers.0.keys.0: Does not match pattern"),
    (
        GATEWAY,
        "peers: [{name: b/gateway, keys: ['ferry:pub:x'], addresses: ['file:/etc/ferry/addresses/b']}]",
        "peers[0]: its addresses are in a file, so give the `ports`",
    ),
    (GATEWAY, "peers: [{name: b/gateway, keys: ['ferry:pub:x'], limits: {sessions: 0}}]", "peers.0.limits.sessions: Must"),
    (
        GATEWAY,
        "egress: [{service: db, peer: b/gateway, port: 1, limits: {bytes_per_second: 1023B}}]",
        "egress[0].limits.bytes_per_second: 1023B is too small; use at least 1KiB",
    ),
    (
        GATEWAY,
        "ingress: [{service: db, forward: 'db:1', allow: [b/gateway], limits: {bytes_per_second: 1Mbit}}]",
        "ingress.0.limits.bytes_per_second: Does not match pattern",
    ),
    (
        GATEWAY,
        "ingress: [{service: db, forward: 'db:1', allow: [b/gateway], limits: {memory: 1MiB}}]",
        "ingress.0.limits: Additional property memory is not allowed",
    ),
    (GATEWAY, "namespace: {create: true}", "namespace: give the `name`"),
    (GATEWAY, "namespace: {create: true, name: default}", "Helm keeps the release in this namespace"),
    (GATEWAY, "metrics: {pod_monitor: true}", "metrics.pod_monitor: give `metrics.namespace`"),
    (WEB_APP, "web_app: {expose: ingress}", "web_app.token: who may use the HTTP API needs a token"),
    (WEB_APP, "web_app: {hooks: text, hooks_config_map: name}", "give `hooks` or `hooks_config_map`, not both"),
    (WEB_APP, "ingress: []", "ingress: a terminator needs one"),
    (WEB_APP, "template: ws-initiator", "egress: an initiator needs one"),
]


def check_refusals(scratch):
    def rendered(*texts):
        files = [scratch / f"over-{at}.yaml" for at, _ in enumerate(texts)]
        for path, text in zip(files, texts):
            path.write_text(text)
        return helm("template", "contrib/chart/ferry", files)

    for base in (GATEWAY, WEB_APP):
        fine = rendered(base)
        if fine.returncode:
            findings.append(f"refused, and should not be: {fine.stderr}")
    for base, over, expected in REFUSED:
        outcome = rendered(base, over)
        if outcome.returncode == 0 or expected not in outcome.stderr:
            findings.append(f"{over}: should be refused with {expected!r}: {outcome.stderr or 'accepted'}")
    print(f"refused: {len(REFUSED)} kinds of wrong values")


def check_affinity(scratch):
    """What somebody says of nodes stands next to what keeps replicas apart, or in its place."""
    (scratch / "replicated.yaml").write_text(GATEWAY + "replicas: 2\n")

    def affinity(of_pod):
        (scratch / "affinity.yaml").write_text(yaml.safe_dump({"pod": {"affinity": of_pod}}))
        files = [scratch / "replicated.yaml", scratch / "affinity.yaml"]
        objects = by_name(yaml.safe_load_all(helm("template", "contrib/chart/ferry", files).stdout))
        return objects["Deployment", "default", "release"]["spec"]["template"]["spec"]["affinity"]

    own = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}
    for given in ({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}, own):
        if affinity(given) != affinity({}) | given:
            findings.append(f"the affinity {given} becomes {affinity(given)}")
    print("affinity: one's own, and apart")


def check_monitoring(scratch):
    """What the schemas of Kubernetes do not have: that the alerts and the dashboard are those of contrib/prometheus."""
    (scratch / "monitored.yaml").write_text(GATEWAY)
    more = "metrics.namespace=monitoring,metrics.pod_monitor=true,metrics.rules=true,metrics.dashboard=true"
    labels = "metrics.labels.release=prometheus"
    rendered = helm("template", "contrib/chart/ferry", [scratch / "monitored.yaml"], "--set", more, "--set", labels)
    objects = {kind + name: one for (kind, _, name), one in by_name(yaml.safe_load_all(rendered.stdout)).items()}
    monitor, rules = objects.get("PodMonitorrelease"), objects.get("PrometheusRulerelease")
    dashboard = objects.get("ConfigMaprelease-dashboard")
    if not (monitor and rules and dashboard):
        findings.append(f"monitoring is not rendered: {rendered.stderr}")
        return
    pod = objects["Deploymentrelease"]["spec"]["template"]
    ports = [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]]
    scraped = [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]]
    if not set(scraped) <= set(ports) or monitor["spec"]["selector"]["matchLabels"].items() - pod["metadata"]["labels"].items():
        findings.append(f"the PodMonitor does not meet the pod: {monitor['spec']}")
    if rules["spec"] != yaml.safe_load(Path("contrib/prometheus/ferry.rules.yaml").read_text()):
        findings.append("the alerts are not those of contrib/prometheus")
    if dashboard["data"]["ferry-dashboard.json"] != Path("contrib/prometheus/ferry-dashboard.json").read_text():
        findings.append("the dashboard is not that of contrib/prometheus")
    if any(one["metadata"]["labels"].get("release") != "prometheus" for one in (monitor, rules)):
        findings.append("what Prometheus selects by is not there")
    print("alerts, dashboard and PodMonitor: those of contrib/prometheus")


def check_package(bundles, scratch):
    """As Helm packs it, and as contrib/dist does."""
    packed = run(HELM, "package", "contrib/chart/ferry", "--destination", scratch)
    plain = scratch / "plain.tgz"
    run("tar", "--dereference", "-C", "contrib/chart", "-czf", plain, "ferry")
    values = sorted(bundles[0].glob("chart/values-*.yaml"))[0]
    given = [values, values.with_name(values.name.replace("values-", "secrets-"))]
    charts = ["contrib/chart/ferry", plain, *scratch.glob("ferry-*.tgz")]
    rendered = [helm("template", chart, given).stdout for chart in charts]
    if len(charts) != 3 or not rendered[0] or len(set(rendered)) != 1:
        findings.append(f"a package renders something else: {packed.stderr}")
    print("packages: as the directory")


def main():
    bundles = [Path(path).resolve() for path in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        files = check_bundles(bundles, scratch) + check_page(scratch)
        validate(files)
        print(f"valid: {len(files)} pods for Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}")
        check_refusals(scratch)
        check_affinity(scratch)
        check_monitoring(scratch)
        check_package(bundles, scratch)
    for found in findings:
        print(f"FINDING: {found}", file=sys.stderr)
    sys.exit(1 if findings else 0)


main()
