say
say 'Verify:'
for ((i = 0; i < ${#PODS[@]}; i += 3)); do
  say "  kubectl logs --context $(printf %q "$CONTEXT") -n ${PODS[i + 1]} deployment/${PODS[i]} -c web-app -f"
done
