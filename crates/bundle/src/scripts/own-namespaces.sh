# Fails if a namespace is there and is not this network's: a bundle removes its namespaces as a whole, and its policy
# denies what it does not know.
need_own_namespace() { # context namespace
  local found
  found=$(kubectl --context "$1" --request-timeout 10s get namespace "$2" \
    --output "jsonpath={.metadata.name}:{.metadata.labels['app\.kubernetes\.io/part-of']}" 2> /dev/null) || return 0
  [[ $found == "$2:$NETWORK" ]] || fail "the namespace $2 is there already and does not belong to $NETWORK" \
    'give the gateway a namespace of its own: namespace in blueprint.yaml'
}

