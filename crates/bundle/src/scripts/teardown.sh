say "This removes, with all messages in them:"
for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do say "  namespace ${NAMESPACES[i + 1]} in ${NAMESPACES[i]}"; done
if [[ $YES == no && $DRY_RUN == no ]]; then
  read -r -p 'Go on? [y/N] ' answer || answer=''
  case $answer in
    y | Y | yes) ;;
    *) fail 'nothing was removed' 'answer y, or run it with --yes' ;;
  esac
fi

# All at once, then each is waited for: a namespace takes its time to go.
delete() { # context namespace wait...
  kubectl --context "$1" delete namespace "$2" --ignore-not-found "${@:3}"
}
for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do
  context=${NAMESPACES[i]} namespace=${NAMESPACES[i + 1]}
  if [[ $DRY_RUN == yes ]]; then
    show kubectl --context "$context" delete namespace "$namespace" --ignore-not-found --timeout "${WAIT}s"
    continue
  fi
  removed=$(delete "$context" "$namespace" --wait=false)
  say "${removed:-namespace \"$namespace\" was not there} ($context)"
done
if [[ $DRY_RUN == no ]]; then
  for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do
    delete "${NAMESPACES[i]}" "${NAMESPACES[i + 1]}" --timeout "${WAIT}s" > /dev/null
  done
  rm -rf .addresses
  say 'The keys in */02-secrets.yaml and the images are still there.'
fi
