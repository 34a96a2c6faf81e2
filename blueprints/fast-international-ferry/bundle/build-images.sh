#!/usr/bin/env bash
# Builds the images of fast-international-ferry. Rendered by `ferry bundle`; README.md says how to use it.

BASE='ferry-python:0.1.0'
# pod, image, cluster of k3d
IMAGES=(
  'initiator' 'fast-international-ferry-initiator:dev' 'cluster-a'
  'terminator' 'fast-international-ferry-terminator:dev' 'cluster-b'
)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

DRY_RUN=no
ARGUMENTS=("$@")

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  for hint in "$@"; do printf '  %s\n' "$hint" >&2; done
  exit 1
}

# Shows a command so that it can be copied.
show() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
}

# Runs a command, or shows it in a dry run.
run() {
  if [[ $DRY_RUN == yes ]]; then show "$@"; else "$@"; fi
}

# Runs a command up to 5 times: an API server may refuse for a second or two.
retry() {
  local left
  for left in 4 3 2 1 0; do
    "$@" && return 0
    [[ $left == 0 ]] || sleep "${FERRY_PAUSE:-1}"
  done
  return 1
}

# As run, with retries.
apply() {
  if [[ $DRY_RUN == yes ]]; then show kubectl "$@"; else retry kubectl "$@"; fi
}

need_kubectl() {
  command -v kubectl > /dev/null ||
    fail 'kubectl is not installed' 'see https://kubernetes.io/docs/tasks/tools/'
}

has_context() { [[ -n $(kubectl config get-contexts "$1" --output name 2> /dev/null) ]]; }

# Fails unless a context leads to a cluster that answers. Never the current context: it may be any cluster. A dry run
# needs none: where no cluster answers, what is there is not looked at.
OFFLINE=no
# shellcheck disable=SC2034 # Not every script asks whether it is.
need_context() {
  local context=$1 known
  if [[ $DRY_RUN == yes && -z $(kubectl config get-contexts --output name 2> /dev/null) ]]; then
    OFFLINE=yes
    return
  fi
  need_kubectl
  if ! has_context "$context"; then
    known=$(kubectl config get-contexts --output name 2> /dev/null | tr '\n' ' ') || true
    fail "kubectl has no context $context" \
      "it has: ${known:-none}" \
      'write the right one under clusters in blueprint.yaml and run ferry bundle again'
  fi
  answers() { kubectl --context "$context" --request-timeout "$1" get --raw /version > /dev/null; }
  if [[ $DRY_RUN == yes ]]; then
    answers 2s 2> /dev/null || OFFLINE=yes
  else
    retry answers 10s || fail "the cluster behind context $context does not answer" \
      "look at: kubectl --context $(printf %q "$context") cluster-info"
  fi
}

# Where a ferry is that can render this bundle: the one that runs this script, on PATH, or built in the source around it.
find_ferry() {
  local dir
  [[ -n ${FERRY_PROGRAM-} ]] && printf '%s\n' "$FERRY_PROGRAM" && return
  command -v ferry && return
  for dir in .. ../.. ../../..; do
    [[ -x $dir/target/release/ferry ]] && printf '%s\n' "$dir/target/release/ferry" && return
  done
  return 1
}

# Fails unless the pods have keys, and keys that nobody else has. A bundle that never had any gets some.
need_keys() { # pod...
  local pod ferry
  if grep -q 'ferry:pub:MADE-BY-ferry-bundle' -- */03-deployment.yaml; then
    if [[ $DRY_RUN == yes ]]; then
      show ferry bundle blueprint.yaml --out .
      return
    fi
    ferry=$(find_ferry) || fail 'this bundle has no keys yet' 'run, in this directory: ferry bundle blueprint.yaml --out .'
    say 'this bundle has no keys yet; making them'
    "$ferry" bundle blueprint.yaml --out .
    # From its beginning: this script has been rendered again, too. An empty array is unset to the bash of macOS.
    exec "./${0##*/}" ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
  fi
  for pod in "$@"; do
    [[ -f $pod/02-secrets.yaml ]] || fail "$pod/02-secrets.yaml is missing" \
      'restore it, or make fresh keys with: ferry bundle blueprint.yaml --out . (and deploy both ends)'
    ! is_published "$pod" || fail "the keys of $pod are published, so anybody has them" \
      'move */02-secrets.yaml away, run: ferry bundle blueprint.yaml --out . (and deploy both ends)'
  done
}

# Whether a pod has one of the keys that were once in Ferry's repository: a private one of 32 equal bytes, in PEM or
# encoded once more, or the public half of one as its peer's.
is_published() { # pod
  local secrets
  secrets=$(cat "$1/02-secrets.yaml" && awk '$1 == "identity.key:" { print $2 }' "$1/02-secrets.yaml" |
    base64 --decode 2> /dev/null) || true
  tr -d '[:space:]' <<< "$secrets" | grep -qE '([A-Za-z0-9+/]{4})\1{8}' ||
    grep -qE 'ferry:pub:(iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w|gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q)' \
      -- "$1/03-deployment.yaml"
}

usage() {
  say "usage: $0 [--k3d | --push] [--dry-run]"
  say
  say 'Builds the images of the pods with docker.'
  say '  --k3d       imports them into the k3d clusters'
  say '  --push      pushes them to the registry in their names'
  say '  --dry-run   shows what would be run, and changes nothing'
  say "  FERRY_SOURCE   where Ferry's source is; by default the directory that you are in, or one around this bundle"
  say '  FERRY_RUST_IMAGE, FERRY_PYTHON_IMAGE   what the base is built on; pin them by digest: python:3-slim@sha256:…'
}

THEN=nothing
while (($# > 0)); do
  case $1 in
    --k3d) THEN=k3d ;;
    --push) THEN=push ;;
    --dry-run) DRY_RUN=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  shift
done

command -v docker > /dev/null || fail 'docker is not installed' 'see https://docs.docker.com/engine/install/'
# Where Ferry's source is: as given, else the caller's directory, else around this bundle.
source_dir() {
  local dir
  # The common part has changed the directory.
  for dir in "${FERRY_SOURCE:-$OLDPWD}" .. ../.. ../../..; do
    if [[ -f $dir/crates/ferry/Cargo.toml && -f $dir/Dockerfile ]]; then
      (cd "$dir" && pwd)
      return
    fi
  done
  return 1
}

if ! docker image inspect "$BASE" > /dev/null 2>&1; then
  SOURCE=$(source_dir) || fail "there is no image $BASE, and no source of Ferry to build it from" \
    "run: FERRY_SOURCE=/path/to/ferry $0"
  say "building $BASE from $SOURCE"
  pinned=()
  [[ -z ${FERRY_RUST_IMAGE-} ]] || pinned+=(--build-arg "RUST_IMAGE=$FERRY_RUST_IMAGE")
  [[ -z ${FERRY_PYTHON_IMAGE-} ]] || pinned+=(--build-arg "PYTHON_IMAGE=$FERRY_PYTHON_IMAGE")
  run docker build --target python ${pinned[@]+"${pinned[@]}"} --tag "$BASE" "$SOURCE"
fi

for ((i = 0; i < ${#IMAGES[@]}; i += 3)); do
  pod=${IMAGES[i]} image=${IMAGES[i + 1]} cluster=${IMAGES[i + 2]}
  say "$pod: building $image"
  run docker build --build-arg "BASE=$BASE" --tag "$image" "$pod/app"
  case $THEN in
    push) run docker push "$image" ;;
    k3d)
      [[ -n $cluster ]] || fail "the cluster of $pod is not one of k3d's" 'push the image to a registry instead: --push'
      run k3d image import "$image" --cluster "$cluster"
      ;;
    *) ;;
  esac
done
