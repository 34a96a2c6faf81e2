for ((i = 0; i < ${#IMAGES[@]}; i += 3)); do
  pod=${IMAGES[i]} image=${IMAGES[i + 1]} cluster=${IMAGES[i + 2]}
  say "$pod: building $image"
  run docker build --build-arg "BASE=$BASE" --tag "$image" "$pod/app"
  case $THEN in
    push) run docker push "$image" ;;
    k3d)
      [[ -n $cluster ]] || fail "the cluster of $pod is not one of k3d's" 'push the image to a registry instead: --push'
      run k3d image import "$image" --cluster "$cluster"
      ;;
    *) ;;
  esac
done
