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

