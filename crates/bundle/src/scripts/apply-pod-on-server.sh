# Applies a pod's manifests, as the API server does it. kubectl itself tells ports of one number not apart by their
# protocols (https://github.com/kubernetes/kubernetes/issues/105610): it would replace TCP by UDP in a Service that is there.
# Hooks, tunnel.yaml and the identity are read again by the pod that runs.
apply_pod() { # pod namespace
  apply --context "$CONTEXT" apply --server-side --force-conflicts --kustomize "$(manifests_of "$1")"
  [[ $DRY_RUN == yes ]] || nudge "$CONTEXT" "$2" "$1" ||
    warn "$1 may take a minute to see its new hooks, tunnel.yaml or identity"
}
