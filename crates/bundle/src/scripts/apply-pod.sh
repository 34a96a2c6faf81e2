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
