# Gives a pod the addresses of one of its peers. Its own ConfigMap, which apply -k never touches; what it says of other
# peers stays. `from` is given, or found.
tell() { # context namespace pod peer addresses from
  local context=$1 namespace=$2 pod=$3 peer=$4 addresses=$5 from=$6 now now_from patch
  now=$(told "$context" "$namespace" "$peer") now_from=$(told "$context" "$namespace" "$peer.from")
  [[ $now_from == given ]] || now_from=found
  if [[ $now == "$addresses" && $now_from == "$from" ]]; then
    say "$pod: already dials $peer at ${addresses//$'\n'/, }"
    return
  fi
  patch="{\"data\":{\"$peer\":\"${addresses//$'\n'/\\n}\",\"$peer.from\":\"$from\"}}"
  if [[ $DRY_RUN == yes ]]; then
    show kubectl --context "$context" --namespace "$namespace" patch configmap tunnel-addresses --type merge --patch "$patch"
    return
  fi
  if ! kubectl --context "$context" --namespace "$namespace" get configmap tunnel-addresses > /dev/null 2>&1; then
    retry kubectl --context "$context" --namespace "$namespace" create configmap tunnel-addresses > /dev/null
  fi
  retry kubectl --context "$context" --namespace "$namespace" patch configmap tunnel-addresses --type merge \
    --patch "$patch" > /dev/null
  nudge "$context" "$namespace" "$pod" || warn "$pod may take a minute to see its new address"
  say "$pod: dials $peer at ${addresses//$'\n'/, }"
}

