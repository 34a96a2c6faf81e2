"""Makes a rendered 03-deployment.yaml playable by podman 4.3, and nothing else of it different.

What podman cannot do, and what stands in for it:

* native sidecars (initContainers with restartPolicy)   a container next to the other
* probes                                                left out; .ci/pods asks /readyz itself
* Service of type LoadBalancer                          hostPort on the tunnel's port
* the DNS of a cluster                                  hostAliases
* fsGroup, and volumes as the kubelet projects them     hostPath to a directory of the pod's user, filled by .ci/pods
* the name of the seccomp profile                       the runtime's default is applied anyway

Usage: pods.py MANIFEST STATE_DIR [PORT=HOST_PORT | HOST_NAME@ADDRESS]...; prints the manifest.
"""

import sys

import yaml

manifest, state = sys.argv[1:3]
published = dict(map(int, pair.split("=")) for pair in sys.argv[3:] if "=" in pair)
known = [pair.split("@") for pair in sys.argv[3:] if "@" in pair]

with open(manifest, encoding="utf-8") as file:
    objects = list(yaml.safe_load_all(file))
(deployment,) = [thing for thing in objects if thing["kind"] == "Deployment"]
pod = deployment["spec"]["template"]["spec"]

containers = pod.pop("initContainers", []) + pod["containers"]
for container in containers:
    container.pop("restartPolicy", None)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        container.pop(probe, None)
    for port in container.get("ports", []):
        if port["containerPort"] in published:
            port["hostPort"] = published[port["containerPort"]]
pod["containers"] = containers

for volume in pod["volumes"]:
    name = volume.pop("name")
    volume.clear()
    volume["hostPath"] = {"path": f"{state}/{name}", "type": "Directory"}
    volume["name"] = name

if known:
    pod["hostAliases"] = [{"ip": address, "hostnames": [name]} for name, address in known]
del pod["securityContext"]["seccompProfile"]
yaml.safe_dump(deployment, sys.stdout, sort_keys=False)
