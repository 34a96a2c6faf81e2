#!/usr/bin/env bash
# Builds the images of fast-ferry. Rendered by `ferry bundle`; README.md says how to use it.

BASE='ferry-python:0.1.0'
# pod, image, cluster of k3d
IMAGES=(
  'initiator' 'fast-ferry-initiator:dev' 'cluster-a'
  'terminator' 'fast-ferry-terminator:dev' 'cluster-a'
)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

DRY_RUN=no

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

# Fails unless a context leads to a cluster that answers. Never the current context: it may be any cluster.
need_context() {
  local context=$1 known
  if ! has_context "$context"; then
    known=$(kubectl config get-contexts --output name 2> /dev/null | tr '\n' ' ') || true
    fail "kubectl has no context $context" \
      "it has: ${known:-none}" \
      'write the right one under clusters in blueprint.yaml and run ferry bundle again'
  fi
  retry kubectl --context "$context" --request-timeout 10s get --raw /version > /dev/null ||
    fail "the cluster behind context $context does not answer" \
      "look at: kubectl --context $(printf %q "$context") cluster-info"
}

usage() {
  say "usage: $0 [--k3d | --push] [--dry-run]"
  say
  say 'Builds the images of the pods with docker.'
  say '  --k3d       imports them into the k3d clusters'
  say '  --push      pushes them to the registry in their names'
  say '  --dry-run   shows what would be run, and changes nothing'
  say "  FERRY_SOURCE   where Ferry's source is; by default the directory that you are in, or one around this bundle"
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
  run docker build --target python --tag "$BASE" "$SOURCE"
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
