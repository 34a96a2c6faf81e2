
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
