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
  # For `ferry bundle --roll`: what it has rendered is here now.
  [[ $DRY_RUN == yes ]] || rm -f -- .roll/*."${0##*/}"
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
