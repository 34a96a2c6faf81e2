need_context "$CONTEXT"
if [[ $OFFLINE == no ]]; then
  for ((i = 0; i < ${#PODS[@]}; i += 3)); do need_own_namespace "$CONTEXT" "${PODS[i + 1]}"; done
fi

