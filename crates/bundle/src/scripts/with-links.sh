# The addresses of a pod, one a line, for each kind of link that it takes, in the order of the blueprint: of its hosts, with
# a port behind those that have none. What has a scheme stands for itself.
with_port() { # hosts port pod
  local i kinds=tcp
  for ((i = 0; i < ${#LINKS[@]}; i += 2)); do
    [[ ${LINKS[i]} != "$3" ]] || kinds=${LINKS[i + 1]}
  done
  printf '%s\n' "$1" | tr -s ', ' '\n' | awk -v port="$2" -v kinds="$kinds" '
    function say(address) { if (!said[address]++) print address }
    /:\/\// { whole[++wholes] = $0; next }
    !/^\[/ && /:.*:/ { $0 = "[" $0 "]" }
    !/:/ || /\]$/ { if ($0 != "") $0 = $0 ":" port }
    $0 != "" { host[++hosts] = $0 }
    END {
      many = split(kinds, kind, " ")
      for (k = 1; k <= many; k++)
        for (h = 1; h <= hosts; h++) say((kind[k] == "quic" ? "quic://" : "") host[h])
      for (w = 1; w <= wholes; w++) say(whole[w])
    }'
}

