#!/usr/bin/env python3
"""Plays kubectl and the clusters behind it for `ferry upgrade`: records calls in $FAKE/calls, and keeps what it plays in
$FAKE/cluster.json. Deployments behave as their controller has them: one whose template is that of no ReplicaSet replaces
its pod, unless it is paused."""

import fcntl, http.server, json, os, sys, threading

fake = os.environ["FAKE"]
lock = open(f"{fake}/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
with open(f"{fake}/cluster.json") as file:
    cluster = json.load(file)
arguments, options = sys.argv[1:], {}
with open(f"{fake}/calls", "a") as calls:
    calls.write(" ".join(arguments) + "\n")
words = []
while arguments:
    word = arguments.pop(0)
    if word in ("--context", "--namespace", "--request-timeout", "--selector", "--output", "--type", "--patch", "--address"):
        options[word] = arguments.pop(0)
    elif word != "--":
        words.append(word)


def save():
    with open(f"{fake}/cluster.json", "w") as file:
        json.dump(cluster, file)


def fail(text):
    save()
    sys.exit(f"Error from server {text}")


def controlled(site):
    """What the Deployment's controller does after a change."""
    if site["template"] != site["set"] and not site["paused"]:
        site["replaced"] = True
        site["set"] = site["template"]


def container(site, name, image, **more):
    return {"name": name, "image": image, "args": ["--leave-sessions"] if name == "tunnel" and site["leaves"] else [], **more}


def status(site, name):
    running = {"name": name, "ready": True, "restartCount": 0, "image": "", "imageID": "", "containerID": f"cri://{site['id']}"}
    running["state"] = {"running": {"startedAt": "2026-01-02T03:04:05Z"}}
    if name == "keeper" and site["keeper"] == "down":
        return running | {"ready": False}
    if name == "tunnel" and site["waits"]:
        return running | {"ready": False, "state": {"waiting": {"reason": site["waits"], "message": "so it is"}}}
    return running


def play(site):
    """The kubelet, by one step for each look."""
    if site["image"] == site["runs"]:
        return
    site["looks"] += 1
    if site["looks"] == 1:
        # What it says is of the image before.
        return
    site["runs"] = ""
    if "missing" in site["image"]:
        site["waits"] = "ErrImagePull" if site["looks"] == 2 else "ImagePullBackOff"
    elif "crashes" in site["image"]:
        site["waits"] = "CrashLoopBackOff"
    elif "slow" in site["image"] or site["looks"] == 2:
        site["waits"] = "ContainerCreating"
    else:
        site.update(waits="", runs=site["image"], id=site["id"] + 1, looks=0)
        site["adopted"] = site["sessions"] - site["lost"]


def pod(site):
    names = ["tunnel"] if site["keeper"] == "none" else ["keeper", "tunnel"]
    images = {"keeper": "app:1", "tunnel": site["image"]}
    containers = [container(site, name, images[name], restartPolicy="Always") for name in names]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": site["name"] + "-5d", "uid": "u", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": site["name"] + "-5d-x", "ownerReferences": [owner]},
        "spec": {"initContainers": containers, "containers": [{"name": "web-app", "image": "app:1"}]},
        "status": {"initContainerStatuses": [status(site, name) for name in names]},
    }


def deployment(site):
    if site["seen"] < site["generation"]:
        # Its controller comes a look later.
        site["seen"] += 1
        observed = site["generation"] - 1
    else:
        observed = site["generation"]
    updated = int(site["template"] == site["set"] and not (site["stubborn"] and site["template"] != "app:1"))
    template = {"spec": {"initContainers": [{"name": "tunnel", "image": site["template"]}], "containers": []}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": site["name"], "generation": site["generation"]},
        "spec": {"replicas": 1, "paused": site["paused"], "selector": {}, "template": template},
        "status": {"observedGeneration": observed, "replicas": 1, "updatedReplicas": updated},
    }


def image_in(spec):
    return next((c["image"] for c in spec.get("initContainers", []) if c["name"] == "tunnel"), None)


def serve(site):
    """Forwards to an admin endpoint that this is, too."""
    totals = dict.fromkeys("detached buffered oldest_key_seconds links_open sent received resumes rotations rotations_failed".split(), 0)
    about = {"version": 1, "ferry": site["runs"], "name": site["name"], "instance": "i", "uptime_seconds": 1, "draining": False}
    settings = {"rotation_every_seconds": 30, "resume_window_seconds": 600}
    totals["sessions"] = site["sessions"]
    answers = {
        "/status": json.dumps(about | {"settings": settings, "totals": totals, "peers": [], "sessions": []}),
        "/metrics": f"ferry_sessions_adopted_total {site['adopted']}\nferry_sessions_dropped_total {site['lost'] if site['adopted'] else 0}\n",
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[self.path.split("?")[0]].encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"Forwarding from 127.0.0.1:{server.server_address[1]} -> 9900", flush=True)
    save()
    lock.close()
    # Not for ever, should the test be killed.
    threading.Timer(60, server.shutdown).start()
    server.serve_forever()


if words[:2] == ["config", "get-contexts"]:
    print(words[2] if words[2] in cluster["contexts"] else "")
    sys.exit()
site = cluster["namespaces"].get(options.get("--namespace"))
if not site:
    fail("(NotFound): no such namespace")
match words:
    case ["get", "pods"]:
        play(site)
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": [] if site["gone"] else [pod(site)]}))
    case ["get", "deployment", _]:
        print(json.dumps(deployment(site)))
    case ["patch", "pod", name]:
        if site["dies"] or site["gone"]:
            site["gone"] = True
            fail(f'(NotFound): pods "{name}" not found')
        if site["forbids"]:
            fail("(Forbidden): you may not")
        patch = json.loads(options["--patch"])
        site["image"] = image_in(patch["spec"])
        site.update(looks=0, gone=site["dies_later"])
    case ["patch", "deployment", _]:
        patch = json.loads(options["--patch"])["spec"]
        if "paused" in patch:
            site["paused"] = bool(patch["paused"])
        if "template" in patch:
            site["template"] = image_in(patch["template"]["spec"])
        site["generation"] += 1
        controlled(site)
    case ["patch", "replicaset", _]:
        # What its controller has not seen is as if it were not paused.
        site["replaced"] |= site["seen"] < site["generation"]
        site["set"] = image_in(json.loads(options["--patch"])["spec"]["template"]["spec"])
        controlled(site)
    case ["port-forward", *_]:
        if site["silent"]:
            fail("(Forbidden): no port-forward")
        serve(site)
    case _:
        fail(f"(BadRequest): {words}")
save()
