
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
