#!/usr/bin/env bash
# Deploys the pods of fast-ferry in cluster-a. Rendered by `ferry bundle`; README.md says how to use it.

NETWORK='fast-ferry'
CLUSTER='cluster-a'
CONTEXT='k3d-cluster-a'
# pod, namespace
PODS=(
  'terminator' 'fast-ferry-terminator-ns'
  'initiator' 'fast-ferry-initiator-ns'
)
# pod, namespace, port
PUBLISHED=(
)
# pod, namespace, peer, its context, namespace, port, address, variable
DIALS=(
)
# pod here, pod there, its context, namespace, script
DIALLERS=(
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

WAIT="${FERRY_WAIT:-300}" # seconds, for a load balancer's address and for each roll-out

usage() {
  say "usage: $0 [--dry-run]"
  say
  say "Deploys the pods of $CLUSTER by the context $CONTEXT."
  say '  --dry-run   shows what would be run, and changes nothing'
  for ((i = 0; i < ${#DIALS[@]}; i += 8)); do
    say "  ${DIALS[i + 7]}   where ${DIALS[i + 2]} is reached: host or host:port, several parted by commas"
  done
}

while (($# > 0)); do
  case $1 in
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

# The addresses of a Service's load balancer, one a line: IP addresses or host names.
discover() { # context namespace service
  kubectl --context "$1" --namespace "$2" --request-timeout 10s get service "$3" \
    --output 'jsonpath={range .status.loadBalancer.ingress[*]}{.ip}{" "}{.hostname}{"\n"}{end}' 2> /dev/null |
    awk 'NF { print $1 }'
}

# Puts a port behind hosts that have none, one address a line.
with_port() { # hosts port
  local host
  printf '%s\n' "$1" | tr -s ', ' '\n' | while read -r host; do
    case $host in
      '') ;;
      \[*\]) printf '%s:%s\n' "$host" "$2" ;;
      \[*\]:*) printf '%s\n' "$host" ;;
      *:*:*) printf '[%s]:%s\n' "$host" "$2" ;;
      *:*) printf '%s\n' "$host" ;;
      *) printf '%s:%s\n' "$host" "$2" ;;
    esac
  done
}

# Waits for a load balancer's address and records it in .addresses/<pod>.
publish() { # pod namespace port
  local pod=$1 namespace=$2 port=$3 found='' started=$SECONDS told=0
  if [[ $DRY_RUN == yes ]]; then
    show kubectl --context "$CONTEXT" --namespace "$namespace" get service "$pod-tunnel" --watch
    return
  fi
  while :; do
    found=$(discover "$CONTEXT" "$namespace" "$pod-tunnel") || found=''
    [[ -z $found ]] || break
    if ((SECONDS - started >= WAIT)); then
      fail "the load balancer of $pod got no address within $WAIT s" \
        "look at: kubectl --context $(printf %q "$CONTEXT") --namespace $namespace describe service $pod-tunnel" \
        'then run this script again; it goes on where it was'
    fi
    if [[ -t 1 ]]; then
      printf '\r%s: waiting for the address of its load balancer, %d s of %d s ' "$pod" "$((SECONDS - started))" "$WAIT"
    elif ((SECONDS - started >= told)); then
      say "$pod: waiting for the address of its load balancer, $((SECONDS - started)) s of $WAIT s"
      told=$((told + 30))
    fi
    sleep "${FERRY_PAUSE:-2}"
  done
  [[ ! -t 1 ]] || printf '\r\033[K'
  found=$(with_port "$found" "$port")
  mkdir -p .addresses
  printf '%s\n' "$found" > ".addresses/$pod"
  say "$pod: reached at ${found//$'\n'/, }, recorded in .addresses/$pod"
}

# Gives a pod the addresses of a peer. Its own ConfigMap, which apply -k never touches.
tell() { # context namespace pod peer addresses
  local context=$1 namespace=$2 pod=$3 peer=$4 addresses=$5 now config_map
  now=$(kubectl --context "$context" --namespace "$namespace" --request-timeout 10s get configmap tunnel-addresses \
    --output "jsonpath={.data['$peer']}" 2> /dev/null) || now=''
  if [[ $now == "$addresses" ]]; then
    say "$pod: already dials $peer at ${addresses//$'\n'/, }"
    return
  fi
  if [[ $DRY_RUN == yes ]]; then
    show kubectl --context "$context" --namespace "$namespace" create configmap tunnel-addresses \
      "--from-literal=$peer=$addresses"
    return
  fi
  config_map=$(kubectl --context "$context" --namespace "$namespace" create configmap tunnel-addresses \
    "--from-literal=$peer=$addresses" --dry-run=client --output yaml)
  printf '%s\n' "$config_map" | kubectl --context "$context" apply --filename - > /dev/null
  # A changed pod makes the kubelet look at once; otherwise it takes up to a minute and a half.
  kubectl --context "$context" --namespace "$namespace" annotate pods --overwrite \
    --selector "app.kubernetes.io/name=$pod,app.kubernetes.io/part-of=$NETWORK" \
    "ferry-addresses-at=$(date -u +%Y-%m-%dT%H.%M.%SZ)" > /dev/null 2>&1 ||
    warn "$pod may take a minute to see its new address"
  say "$pod: dials $peer at ${addresses//$'\n'/, }"
}

# Finds out where a peer is and tells the pod that dials it: given, else the blueprint's, else discovered, else recorded.
dial() { # pod namespace peer context namespace port address variable
  local pod=$1 namespace=$2 peer=$3 context=$4 far=$5 port=$6 known=$7 variable=$8 address='' from=''
  if [[ -n ${!variable-} ]]; then
    address=${!variable} from="given by $variable"
  elif [[ -n $known ]]; then
    address=$known from='from the blueprint'
  elif [[ -n $context ]] && has_context "$context" && address=$(discover "$context" "$far" "$peer-tunnel") &&
    [[ -n $address ]]; then
    from="discovered by $context"
  elif [[ -s .addresses/$peer ]]; then
    address=$(< ".addresses/$peer") from="recorded in .addresses/$peer"
  fi
  if [[ -z $address ]]; then
    WAITING="$pod runs and waits for the address of $peer. Deploy $peer, or give the address:
  $variable=HOST:$port $0"
    return
  fi
  address=$(with_port "$address" "$port")
  ! grep -qv ":$port\$" <<< "$address" ||
    warn "the network policy of $pod lets only port $port out; put the address into blueprint.yaml to change that"
  say "$pod: address of $peer $from"
  tell "$CONTEXT" "$namespace" "$pod" "$peer" "$address"
}

WAITING=''
need_kubectl
need_context "$CONTEXT"

for ((i = 0; i < ${#PODS[@]}; i += 2)); do
  pod=${PODS[i]}
  say "$pod: applying to $CLUSTER ($CONTEXT)"
  apply --context "$CONTEXT" apply --filename "$pod/01-namespace.yaml"
  # Before the pod where possible, so that it finds the address as it starts.
  for ((d = 0; d < ${#DIALS[@]}; d += 8)); do
    [[ ${DIALS[d]} != "$pod" ]] || dial "${DIALS[@]:d:8}"
  done
  apply --context "$CONTEXT" apply --kustomize "$pod"
done

for ((i = 0; i < ${#PODS[@]}; i += 2)); do
  pod=${PODS[i]} namespace=${PODS[i + 1]}
  if ! run kubectl --context "$CONTEXT" --namespace "$namespace" rollout status "deployment/$pod" --timeout "${WAIT}s"; then
    fail "$pod did not come up within $WAIT s" \
      "look at: kubectl --context $(printf %q "$CONTEXT") --namespace $namespace describe pods" \
      'are its images where the cluster finds them? ./build-images.sh puts them there'
  fi
done

for ((i = 0; i < ${#PUBLISHED[@]}; i += 3)); do
  publish "${PUBLISHED[@]:i:3}"
done

# Pods elsewhere that were deployed first wait for the address.
for ((i = 0; i < ${#DIALLERS[@]}; i += 5)); do
  peer=${DIALLERS[i]} pod=${DIALLERS[i + 1]} context=${DIALLERS[i + 2]} namespace=${DIALLERS[i + 3]}
  if [[ $DRY_RUN == yes ]]; then
    say "$pod would be told the address of $peer, if it runs already"
  elif has_context "$context" &&
    kubectl --context "$context" --request-timeout 10s get namespace "$namespace" > /dev/null 2>&1; then
    tell "$context" "$namespace" "$pod" "$peer" "$(< ".addresses/$peer")"
  else
    say "$pod: not there yet; next: ${DIALLERS[i + 4]}"
  fi
done

if [[ -n $WAITING ]]; then
  say
  say "$WAITING"
fi
say
say 'Verify:'
for ((i = 0; i < ${#PODS[@]}; i += 2)); do
  say "  kubectl logs --context $(printf %q "$CONTEXT") -n ${PODS[i + 1]} deployment/${PODS[i]} -c web-app -f"
done
