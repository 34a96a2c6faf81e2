
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
