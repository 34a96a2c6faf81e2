
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

