say
say 'Verify:'
for ((i = 0; i < ${#PODS[@]}; i += 3)); do
  container=web-app
  [[ ${PODS[i + 2]} != gateway ]] || container=tunnel
  say "  kubectl logs --context $(printf %q "$CONTEXT") -n ${PODS[i + 1]} deployment/${PODS[i]} -c $container -f"
done
for ((i = 0; i < ${#SERVICES[@]}; i += 2)); do say "  applications here reach ${SERVICES[i]} at ${SERVICES[i + 1]}"; done
