
WAIT="${FERRY_WAIT:-300}" # seconds, for each namespace to go

usage() {
  say "usage: $0 [--yes] [--dry-run]"
  say
  say "Removes $NETWORK: the namespaces of its pods with all that is in them, messages included."
  say '  --yes       does not ask'
  say '  --dry-run   shows what would be run, and changes nothing'
}

YES=no
while (($# > 0)); do
  case $1 in
    --yes) YES=yes ;;
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

for ((i = 0; i < ${#NAMESPACES[@]}; i += 2)); do need_context "${NAMESPACES[i]}"; done

