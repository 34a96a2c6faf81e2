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
  found=$(with_port "$found" "$port"{{of_pod}})
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

