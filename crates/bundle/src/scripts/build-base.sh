if ! docker image inspect "$BASE" > /dev/null 2>&1; then
  SOURCE=$(source_dir) || fail "there is no image $BASE, and no source of Ferry to build it from" \
    "run: FERRY_SOURCE=/path/to/ferry $0"
  say "building $BASE from $SOURCE"
  pinned=()
  [[ -z ${FERRY_RUST_IMAGE-} ]] || pinned+=(--build-arg "RUST_IMAGE=$FERRY_RUST_IMAGE")
  [[ -z ${FERRY_PYTHON_IMAGE-} ]] || pinned+=(--build-arg "PYTHON_IMAGE=$FERRY_PYTHON_IMAGE")
  run docker build --target python ${pinned[@]+"${pinned[@]}"} --tag "$BASE" "$SOURCE"
fi

