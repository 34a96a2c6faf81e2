if ! docker image inspect "$GATEWAY_BASE" > /dev/null 2>&1; then
  SOURCE=$(source_dir) || fail "there is no image $GATEWAY_BASE, and no source of Ferry to build it from" \
    "run: FERRY_SOURCE=/path/to/ferry $0"
  say "building $GATEWAY_BASE from $SOURCE"
  pinned=()
  [[ -z ${FERRY_RUST_IMAGE-} ]] || pinned+=(--build-arg "RUST_IMAGE=$FERRY_RUST_IMAGE")
  run docker build --target ferry ${pinned[@]+"${pinned[@]}"} --tag "$GATEWAY_BASE" "$SOURCE"
fi

# One image for all gateways: the binary alone.
run docker tag "$GATEWAY_BASE" "$GATEWAY_IMAGE"
[[ $THEN != push ]] || run docker push "$GATEWAY_IMAGE"
for ((i = 0; i < ${#GATEWAYS[@]}; i += 2)); do
  [[ $THEN == k3d ]] || continue
  pod=${GATEWAYS[i]} cluster=${GATEWAYS[i + 1]}
  [[ -n $cluster ]] || fail "the cluster of $pod is not one of k3d's" 'push the image to a registry instead: --push'
  run k3d image import "$GATEWAY_IMAGE" --cluster "$cluster"
done
