#!/usr/bin/env bash
# Removes fast-international-ferry from its clusters. Rendered by `ferry bundle`; README.md says how to use it.

NETWORK='fast-international-ferry'
# context, namespace
NAMESPACES=(
  'k3d-cluster-a' 'fast-international-ferry-initiator-ns'
  'k3d-cluster-b' 'fast-international-ferry-terminator-ns'
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

WAIT="${FERRY_WAIT:-300}" # seconds, for each namespace to go

usage() {
  say "usage: $0 [--yes] [--dry-run]"
  say
  say "Removes $NETWORK: the namespaces of its pods with all that is in them, messages included."
  say '  --yes       does not ask'
  say '  --dry-run   shows what would be run, and changes nothing'
}

YES=no
while (($# > 0)); do
  case $1 in
    --yes) YES=yes ;;
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

need_kubectl
for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do need_context "${NAMESPACES[i]}"; done

say "This removes, with all messages in them:"
for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do say "  namespace ${NAMESPACES[i + 1]} in ${NAMESPACES[i]}"; done
if [[ $YES == no && $DRY_RUN == no ]]; then
  read -r -p 'Go on? [y/N] ' answer || answer=''
  case $answer in
    y | Y | yes) ;;
    *) fail 'nothing was removed' 'answer y, or run it with --yes' ;;
  esac
fi

for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do
  context=${NAMESPACES[i]} namespace=${NAMESPACES[i + 1]}
  if [[ $DRY_RUN == yes ]]; then
    show kubectl --context "$context" delete namespace "$namespace" --ignore-not-found --timeout "${WAIT}s"
    continue
  fi
  removed=$(kubectl --context "$context" delete namespace "$namespace" --ignore-not-found --timeout "${WAIT}s")
  say "${removed:-namespace \"$namespace\" was not there} ($context)"
done
if [[ $DRY_RUN == no ]]; then
  rm -rf .addresses
  say 'The keys in */02-secrets.yaml and the images are still there.'
fi
