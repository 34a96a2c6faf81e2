
# The addresses of a Service's load balancer, one a line: IP addresses or host names.
discover() { # context namespace service
  kubectl --context "$1" --namespace "$2" --request-timeout 10s get service "$3" \
    --output 'jsonpath={range .status.loadBalancer.ingress[*]}{.ip}{" "}{.hostname}{"\n"}{end}' 2> /dev/null |
    awk 'NF { print $1 }'
}

