# What .ci/pods and .ci/gateways share: nodes that stand in for clusters, and rendered pods that run on them.
# Sourced with FERRY, the binary, set.
# shellcheck shell=bash

USER_ID=65532
DEADLINE=60 # seconds, for anything that is waited for

STATE=$(mktemp -d)
# shellcheck disable=SC2034 # Both scripts render into it.
BUNDLE=$STATE/bundle
declare -A NODE=()

say() { printf '== %3d s: %s\n' "$SECONDS" "$*"; }
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  for node in "${!NODE[@]}"; do
    printf -- '-- logs of cluster %s\n' "$node" >&2
    for container in $(on "$node" podman ps --all --quiet); do
      on "$node" podman logs --tail 30 "$container" >&2 || true
    done
  done
  exit 1
}

# Runs a command on a node.
on() {
  local node=${NODE[$1]}
  shift
  nsenter --target "$node" --mount --net -- env CONTAINERS_CONF="$STATE/containers.conf" "$@"
}

clean_up() {
  for node in "${!NODE[@]}"; do
    on "$node" podman pod rm --all --force --time 2 > /dev/null 2>&1 || true
    kill "${NODE[$node]}" 2> /dev/null || true
  done
  wait 2> /dev/null || true
  rm -rf "$STATE" 2> /dev/null || true
}
trap clean_up EXIT

install_tools() {
  if ! command -v podman > /dev/null || ! command -v runc > /dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends podman netavark aardvark-dns iptables runc catatonit > /dev/null
  fi
  python3 -c 'import yaml' 2> /dev/null && PYTHON=python3 && return
  [[ -x .ci/.venv/bin/python ]] || python3 -m venv .ci/.venv
  .ci/.venv/bin/python -c 'import yaml' 2> /dev/null ||
    .ci/.venv/bin/pip install --quiet --require-hashes --requirement .ci/requirements.txt
  PYTHON=.ci/.venv/bin/python
}

# A node: namespaces of its own for mounts and network, and a podman with state of its own.
start_node() { # name
  mkdir -p "$STATE/$1/storage"
  unshare --mount --net --propagation private sleep infinity &
  NODE[$1]=$!
  sleep 0.2
  on "$1" bash -c "
    set -e
    mkdir -p /run/containers /run/netns /run/libpod /var/lib/containers/storage
    for dir in /run/containers /run/netns /run/libpod; do mount -t tmpfs tmpfs \$dir; done
    mount --bind '$STATE/$1/storage' /var/lib/containers/storage
    if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
    ip link set lo up
    sysctl -qw net.ipv4.ip_forward=1"
}

# Copies the libraries that programs want to the same places under a root.
copy_libraries() { # root program...
  local root=$1 library
  shift
  for library in $(ldd "$@" 2> /dev/null | grep -o '/[^ :]*' | sort -u); do
    mkdir -p "$root$(dirname "$library")"
    [[ -e $root$library ]] || cp -L "$library" "$root$library"
  done
}

# Writes a volume as the kubelet does: a new directory, then a link that is swapped.
project() { # pod volume file content
  local dir=$STATE/$1-volumes/$2 version
  version=..$(date +%s%N)
  mkdir -p "$dir/$version"
  printf '%s' "$4" > "$dir/$version/$3"
  chown -R "$USER_ID:$USER_ID" "$dir"
  chmod 0440 "$dir/$version/$3"
  ln -s "$version" "$dir/..data_tmp"
  mv -T "$dir/..data_tmp" "$dir/..data"
  [[ -L $dir/$3 ]] || ln -s "..data/$3" "$dir/$3"
}

# What an object of the bundle holds: file, kind, key.
held() {
  "$PYTHON" -c '
import base64, sys, yaml
for thing in yaml.safe_load_all(open(sys.argv[1], encoding="utf-8")):
    if thing["kind"] == sys.argv[2]:
        held = thing["data"][sys.argv[3]]
        print(base64.b64decode(held).decode() if thing["kind"] == "Secret" else held, end="")' "$@"
}

address_of() { # node
  on "$1" podman inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' \
    "$(on "$1" podman ps --quiet --filter 'name=infra')"
}
ask() { on "$1" curl --silent --show-error --fail --max-time 15 "http://$(address_of "$1"):$2"; }
metric() { ask "$1" 9900/metrics | awk -v name="$2" '$1 ~ "^" name "([{]|$)" { sum += $2 } END { print sum + 0 }'; }

until_true() { # what command...
  local what=$1 end=$((SECONDS + DEADLINE))
  shift
  until "$@" > /dev/null 2>&1; do
    ((SECONDS < end)) || fail "$what: not within $DEADLINE s"
    sleep 0.3
  done
}

[[ $(id -u) == 0 ]] || fail 'needs root'
[[ -x $FERRY ]] || fail "there is no $FERRY; run cargo build --release"
install_tools
cat > "$STATE/containers.conf" << 'CONF'
[containers]
default_ulimits = ["nofile=20000:20000","nproc=20000:20000"]
[engine]
runtime = "runc"
[network]
network_backend = "netavark"
CONF

