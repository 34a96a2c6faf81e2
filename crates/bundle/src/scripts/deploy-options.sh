
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

