# Puts a port behind hosts that have none, one address a line.
with_port() { # hosts port
  local host
  printf '%s\n' "$1" | tr -s ', ' '\n' | while read -r host; do
    case $host in
      '') ;;
      \[*\]) printf '%s:%s\n' "$host" "$2" ;;
      \[*\]:*) printf '%s\n' "$host" ;;
      *:*:*) printf '[%s]:%s\n' "$host" "$2" ;;
      *:*) printf '%s\n' "$host" ;;
      *) printf '%s:%s\n' "$host" "$2" ;;
    esac
  done
}

