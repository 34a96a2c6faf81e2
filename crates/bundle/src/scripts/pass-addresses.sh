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
  address=$(with_port "$address" "$port"{{of_peer}})
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
