if [[ $OFFLINE == no ]]; then
  for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do need_own_namespace "${NAMESPACES[@]:i:2}"; done
fi

