
usage() {
  say "usage: $0 [--k3d | --push] [--dry-run]"
  say
  say 'Builds the images of the pods with docker.'
  say '  --k3d       imports them into the k3d clusters'
  say '  --push      pushes them to the registry in their names'
  say '  --dry-run   shows what would be run, and changes nothing'
  say "  FERRY_SOURCE   where Ferry's source is; by default the directory that you are in, or one around this bundle"
  say '  FERRY_RUST_IMAGE, FERRY_PYTHON_IMAGE   what the base is built on; pin them by digest: python:3-slim@sha256:…'
}

THEN=nothing
while (($# > 0)); do
  case $1 in
    --k3d) THEN=k3d ;;
    --push) THEN=push ;;
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

command -v docker > /dev/null || fail 'docker is not installed' 'see https://docs.docker.com/engine/install/'
# Where Ferry's source is: as given, else the caller's directory, else around this bundle.
source_dir() {
  local dir
  # The common part has changed the directory.
  for dir in "${FERRY_SOURCE:-$OLDPWD}" .. ../.. ../../..; do
    if [[ -f $dir/crates/ferry/Cargo.toml && -f $dir/Dockerfile ]]; then
      (cd "$dir" && pwd)
      return
    fi
  done
  return 1
}

