#!/usr/bin/env bash
# Stands in for kubectl: records every call in $FAKE/calls and answers from files in $FAKE.
set -euo pipefail
echo "$*" >> "$FAKE/calls"

# Fails as often as the file says that it should.
fail_while() {
  local left
  [[ -f $FAKE/$1 ]] || return 0
  left=$(< "$FAKE/$1")
  ((left > 0)) || return 0
  echo $((left - 1)) > "$FAKE/$1"
  echo "fake: refused" >&2
  exit 1
}

context='' namespace=''
args=()
while (($# > 0)); do
  case $1 in
    --context) context=$2 && shift ;;
    --namespace) namespace=$2 && shift ;;
    --request-timeout | --timeout) shift ;;
    *) args+=("$1") ;;
  esac
  shift
done

case "${args[*]}" in
  'config get-contexts --output name') cat "$FAKE/contexts" ;;
  'config get-contexts '*) grep -x -- "${args[2]}" "$FAKE/contexts" ;;
  'get --raw /version') fail_while refuse ;;
  'get namespace '*) [[ -f $FAKE/namespace.${args[2]} ]] ;;
  'get service '*)
    fail_while late
    [[ ! -f $FAKE/address ]] || cat "$FAKE/address"
    ;;
  'get configmap '*) cat "$FAKE/configmap.$namespace" ;;
  'create configmap '*) echo "$namespace ${args[3]}" ;;
  'apply --filename -')
    read -r -d '' into literal || true
    printf '%s' "${literal#*=*=}" > "$FAKE/configmap.$into"
    echo "$context" > "$FAKE/told"
    ;;
  'apply '*) fail_while refuse_apply ;;
  'rollout '*) fail_while stuck ;;
  'annotate '*) ;;
  'exec '*) cat "$FAKE/output" ;;
  'delete namespace '*)
    [[ ! -f $FAKE/namespace.${args[2]} ]] || echo "namespace \"${args[2]}\" deleted"
    ;;
  *)
    echo "fake: what is ${args[*]}?" >&2
    exit 64
    ;;
esac
