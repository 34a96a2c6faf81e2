#!/usr/bin/env bash
# Deploys the pods of fast-international-ferry in cluster-b. Rendered by `ferry bundle`; README.md says how to use it.

NETWORK='fast-international-ferry'
CLUSTER='cluster-b'
CONTEXT='k3d-cluster-b'
# pod, namespace, role
PODS=(
  'terminator' 'fast-international-ferry-terminator-ns' 'terminator'
)
# pod, namespace, port
PUBLISHED=(
  'terminator' 'fast-international-ferry-terminator-ns' '30200'
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

# A value of the ConfigMap with a pod's addresses; nothing if it is not there.
told() { # context namespace key
  [[ $OFFLINE == no ]] || return 0
  kubectl --context "$1" --namespace "$2" --request-timeout 10s get configmap tunnel-addresses \
    --output "jsonpath={.data['$3']}" 2> /dev/null || true
}

# The address of a peer that somebody gave in an earlier run: recorded in the cluster, and in .addresses/<peer>.given.
given_before() { # context namespace peer
  if [[ $(told "$1" "$2" "$3.from") == given ]]; then
    told "$1" "$2" "$3"
  elif [[ -s .addresses/$3.given ]]; then
    cat ".addresses/$3.given"
  fi
}

# Gives a pod the addresses of a peer. Its own ConfigMap, which apply -k never touches. `from` is given, or found.
tell() { # context namespace pod peer addresses from
  local context=$1 namespace=$2 pod=$3 peer=$4 addresses=$5 from=$6 now now_from config_map literals
  now=$(told "$context" "$namespace" "$peer") now_from=$(told "$context" "$namespace" "$peer.from")
  [[ $now_from == given ]] || now_from=found
  if [[ $now == "$addresses" && $now_from == "$from" ]]; then
    say "$pod: already dials $peer at ${addresses//$'\n'/, }"
    return
  fi
  literals=("--from-literal=$peer=$addresses" "--from-literal=$peer.from=$from")
  if [[ $DRY_RUN == yes ]]; then
    show kubectl --context "$context" --namespace "$namespace" create configmap tunnel-addresses "${literals[@]}"
    return
  fi
  config_map=$(kubectl --context "$context" --namespace "$namespace" create configmap tunnel-addresses \
    "${literals[@]}" --dry-run=client --output yaml)
  printf '%s\n' "$config_map" | kubectl --context "$context" apply --filename - > /dev/null
  nudge "$context" "$namespace" "$pod" || warn "$pod may take a minute to see its new address"
  say "$pod: dials $peer at ${addresses//$'\n'/, }"
}

# A changed pod makes the kubelet look at its ConfigMaps at once; otherwise it takes up to a minute and a half.
nudge() { # context namespace pod
  kubectl --context "$1" --namespace "$2" annotate pods --overwrite \
    --selector "app.kubernetes.io/name=$3,app.kubernetes.io/part-of=$NETWORK" \
    "ferry-changed-at=$(date -u +%Y-%m-%dT%H.%M.%SZ)" > /dev/null 2>&1
}

# Finds out where a peer is and tells the pod that dials it. What somebody gave, now or in an earlier run, comes first;
# then the blueprint's, then what is discovered, then what was recorded.
dial() { # pod namespace peer context namespace port address variable
  local pod=$1 namespace=$2 peer=$3 context=$4 far=$5 port=$6 known=$7 variable=$8 address='' from='' kind=found
  if [[ ${!variable-} == auto ]]; then
    [[ $DRY_RUN == yes ]] || rm -f ".addresses/$peer.given"
  elif [[ -n ${!variable-} ]]; then
    address=${!variable} from="given by $variable" kind=given
    [[ $DRY_RUN == yes ]] || { mkdir -p .addresses && printf '%s\n' "$address" > ".addresses/$peer.given"; }
  else
    address=$(given_before "$CONTEXT" "$namespace" "$peer")
    [[ -z $address ]] || from="given earlier; $variable=auto forgets it" kind=given
  fi
  if [[ -n $address ]]; then
    :
  elif [[ -n $known ]]; then
    address=$known from='from the blueprint'
  elif [[ $OFFLINE == no && -n $context ]] && has_context "$context" &&
    address=$(discover "$context" "$far" "$peer-tunnel") && [[ -n $address ]]; then
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
  tell "$CONTEXT" "$namespace" "$pod" "$peer" "$address" "$kind"
}

# Tells the pods elsewhere that dial a pod here, where they run already.
tell_diallers() {
  local i peer pod context namespace
  for ((i = 0; i < ${#DIALLERS[@]}; i += 5)); do
    peer=${DIALLERS[i]} pod=${DIALLERS[i + 1]} context=${DIALLERS[i + 2]} namespace=${DIALLERS[i + 3]}
    if [[ $DRY_RUN == yes ]]; then
      say "$pod would be told the address of $peer, if it runs already"
    elif ! has_context "$context" ||
      ! kubectl --context "$context" --request-timeout 10s get namespace "$namespace" > /dev/null 2>&1; then
      say "$pod: not there yet; next: ${DIALLERS[i + 4]}"
    elif [[ -n $(given_before "$context" "$namespace" "$peer") ]]; then
      say "$pod: goes on dialling $peer where it was told to by hand"
    else
      tell "$context" "$namespace" "$pod" "$peer" "$(< ".addresses/$peer")" found
    fi
  done
}

# The directory of a pod's manifests: its overlay, where there is one, so that no run undoes what the overlay says.
manifests_of() { # pod
  if [[ -d overlays/$1 ]]; then printf 'overlays/%s\n' "$1"; else printf '%s\n' "$1"; fi
}

# Of a text, in hexadecimal.
sha256() { if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1; }

# Fails if something else than this bundle has changed a pod's tunnel.yaml: applying would undo that, and end sessions.
need_own_config() { # pod namespace
  local pod=$1 namespace=$2 rendered live
  [[ $OVERWRITE == no && $OFFLINE == no && ! -d overlays/$pod ]] || return 0
  config() {
    kubectl --context "$CONTEXT" --namespace "$namespace" --request-timeout 10s get cm tunnel --output "$1" 2> /dev/null
  }
  rendered=$(config "jsonpath={.metadata.annotations['ferry-rendered']}") || return 0
  [[ $rendered =~ ^[0-9a-f]{64}$ ]] || return 0
  live=$(config 'jsonpath={.data.tunnel\.yaml}' | sha256) || return 0
  [[ $live == "$rendered" ]] || fail "the tunnel.yaml of $pod in the cluster is not as this bundle rendered it" \
    "to keep what was changed: put it into an overlay in overlays/$pod, which this script then applies (see README.md)" \
    'to undo it: run this script with --overwrite'
}

# Fails if a pod that runs cannot load the hooks that it is about to get. Its own Python, with its packages, has the say.
need_hooks() { # pod namespace role
  local pod=$1 namespace=$2 role=$3 said code=0
  [[ $DRY_RUN == no && -f $pod/app/app.py ]] || return 0
  said=$(kubectl --context "$CONTEXT" --namespace "$namespace" exec --stdin --pod-running-timeout 2s "deployment/$pod" \
    --container web-app -- sh -c "cat > /tmp/app.py && exec ferry $role --check --hooks /tmp/app.py" \
    < "$pod/app/app.py" 2>&1) || code=$?
  # 78 is a configuration that cannot be used. Anything else says nothing of the hooks: there may be no pod yet.
  [[ $code != 78 ]] || fail "$pod cannot load $pod/app/app.py" "$(grep -v '^command terminated' <<< "$said" | tail -n 1)"
}

# What each container of a pod is at: name, ready, why it waits.
containers_of() { # pod namespace
  local each='{.name} {.ready} {.state.waiting.reason}{"\n"}{end}'
  kubectl --context "$CONTEXT" --namespace "$2" --request-timeout 10s get pods \
    --selector "app.kubernetes.io/name=$1,app.kubernetes.io/part-of=$NETWORK" \
    --output "jsonpath={range .items[*]}{range .status.initContainerStatuses[*]}$each{range .status.containerStatuses[*]}$each{end}" \
    2> /dev/null || true
}

# Says what each container that is not ready said last.
last_words() { # pod namespace
  local container ready reason line
  containers_of "$1" "$2" | while read -r container ready reason; do
    [[ $ready == false ]] || continue
    line=$(kubectl --context "$CONTEXT" --namespace "$2" --request-timeout 10s logs "deployment/$1" \
      --container "$container" --tail 1 2> /dev/null) || line=''
    printf '  %s\n' "$container${reason:+ ($reason)}: ${line:-said nothing}" >&2
  done
}

ROLLOUT=''
trap '[[ -z $ROLLOUT ]] || kill "$ROLLOUT" 2> /dev/null || true' EXIT

# Waits until a pod is up. An image that is not there ends the wait at once: waiting brings none.
await_pod() { # pod namespace
  local pod=$1 namespace=$2 looks=0 missing='' code=0
  local command=(kubectl --context "$CONTEXT" --namespace "$namespace" rollout status "deployment/$pod" --timeout "${WAIT}s")
  if [[ $DRY_RUN == yes ]]; then
    show "${command[@]}"
    return
  fi
  "${command[@]}" &
  ROLLOUT=$!
  while kill -0 "$ROLLOUT" 2> /dev/null && [[ -z $missing ]]; do
    ((looks++ % 10)) || missing=$(containers_of "$pod" "$namespace" |
      awk '$3 ~ /^(ErrImagePull|ImagePullBackOff|ErrImageNeverPull|InvalidImageName)$/ { print $1 " (" $3 ")"; exit }')
    sleep "${FERRY_PAUSE:-0.2}"
  done
  if [[ -n $missing ]]; then
    fail "the cluster does not find the image of $pod: $missing" './build-images.sh puts it there'
  fi
  wait "$ROLLOUT" || code=$?
  ROLLOUT=''
  if [[ $code != 0 ]]; then
    last_words "$pod" "$namespace"
    fail "$pod did not come up within $WAIT s" \
      "look at: kubectl --context $(printf %q "$CONTEXT") --namespace $namespace describe pods" \
      'are its images where the cluster finds them? ./build-images.sh puts them there'
  fi
}

# Applies a pod's manifests. Hooks, tunnel.yaml and the identity are read again by the pod that runs.
apply_pod() { # pod namespace
  local said
  if [[ $DRY_RUN == yes ]]; then
    show kubectl --context "$CONTEXT" apply --kustomize "$(manifests_of "$1")"
    return
  fi
  said=$(retry kubectl --context "$CONTEXT" apply --kustomize "$(manifests_of "$1")")
  [[ -z $said ]] || say "$said"
  ! grep -qE '^(configmap/(hooks|tunnel)|secret/tunnel-identity) configured' <<< "$said" || nudge "$CONTEXT" "$2" "$1" ||
    warn "$1 may take a minute to see its new hooks, tunnel.yaml or identity"
}

WAIT="${FERRY_WAIT:-300}" # seconds, for a load balancer's address and for each roll-out

usage() {
  say "usage: $0 [--addresses] [--overwrite] [--dry-run]"
  say
  say "Deploys the pods of $CLUSTER by the context $CONTEXT."
  say '  --addresses   passes addresses on, and changes nothing else'
  say '  --overwrite   undoes what something else than this bundle has changed in a tunnel.yaml'
  say '  --dry-run     shows what would be run, and changes nothing; needs no cluster'
  for ((i = 0; i < ${#DIALS[@]}; i += 8)); do
    say "  ${DIALS[i + 7]}   where ${DIALS[i + 2]} is reached: host or host:port, several parted by commas;"
    say '    later runs keep to it, until it is given as "auto"'
  done
}

OVERWRITE=no
ADDRESSES_ONLY=no
while (($# > 0)); do
  case $1 in
    --addresses) ADDRESSES_ONLY=yes ;;
    --overwrite) OVERWRITE=yes ;;
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

WAITING=''
need_context "$CONTEXT"
[[ $OFFLINE == no ]] || warn "no cluster answers behind $CONTEXT, so what is there is not looked at"

if [[ $ADDRESSES_ONLY == no ]]; then
  pods=()
  for ((i = 0; i < ${#PODS[@]}; i += 3)); do pods+=("${PODS[i]}"); done
  need_keys "${pods[@]}"
  for ((i = 0; i < ${#PODS[@]}; i += 3)); do
    need_own_config "${PODS[@]:i:2}"
    need_hooks "${PODS[@]:i:3}"
  done
fi

for ((i = 0; i < ${#PODS[@]}; i += 3)); do
  pod=${PODS[i]} namespace=${PODS[i + 1]}
  if [[ $ADDRESSES_ONLY == no ]]; then
    say "$pod: applying $(manifests_of "$pod") to $CLUSTER ($CONTEXT)"
    apply --context "$CONTEXT" apply --filename "$pod/01-namespace.yaml"
  fi
  # Before the pod where possible, so that it finds the address as it starts.
  for ((d = 0; d < ${#DIALS[@]}; d += 8)); do
    [[ ${DIALS[d]} != "$pod" ]] || dial "${DIALS[@]:d:8}"
  done
  [[ $ADDRESSES_ONLY == yes ]] || apply_pod "$pod" "$namespace"
done

if [[ $ADDRESSES_ONLY == no ]]; then
  for ((i = 0; i < ${#PODS[@]}; i += 3)); do await_pod "${PODS[@]:i:2}"; done
  # For `ferry bundle --roll`: what it has rendered is here now.
  [[ $DRY_RUN == yes ]] || rm -f -- .roll/*."${0##*/}"
fi

for ((i = 0; i < ${#PUBLISHED[@]}; i += 3)); do
  publish "${PUBLISHED[@]:i:3}"
done
tell_diallers

if [[ -n $WAITING ]]; then
  say
  say "$WAITING"
fi
[[ $ADDRESSES_ONLY == no ]] || exit 0
say
say 'Verify:'
for ((i = 0; i < ${#PODS[@]}; i += 3)); do
  say "  kubectl logs --context $(printf %q "$CONTEXT") -n ${PODS[i + 1]} deployment/${PODS[i]} -c web-app -f"
done
