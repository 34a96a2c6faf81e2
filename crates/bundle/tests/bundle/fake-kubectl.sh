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

# What a file says, where there is one.
answer() { [[ ! -f $FAKE/$1 ]] || cat "$FAKE/$1"; }

# Ends with the code that a file says.
ended() { exit "$([[ -f $FAKE/$1 ]] && cat "$FAKE/$1" || echo 0)"; }

context='' namespace=''
args=()
while (($# > 0)); do
  case $1 in
    --context) context=$2 && shift ;;
    --namespace) namespace=$2 && shift ;;
    --request-timeout | --timeout | --pod-running-timeout) shift ;;
    *) args+=("$1") ;;
  esac
  shift
done

case "${args[*]}" in
  'config get-contexts --output name') cat "$FAKE/contexts" ;;
  'config get-contexts '*) grep -x -- "${args[2]}" "$FAKE/contexts" ;;
  'get --raw /version') fail_while refuse ;;
  'get namespace '*)
    [[ -f $FAKE/namespace.${args[2]} ]]
    answer "owner.${args[2]}"
    ;;
  'get service '*)
    fail_while late
    answer address
    ;;
  'get cm tunnel '*annotations*) answer "digest.$namespace" ;;
  'get cm tunnel '*) answer "config.$namespace" ;;
  'get configmap tunnel-addresses') [[ -f $FAKE/patched.$namespace ]] ;;
  'get configmap '*".from']}") answer "configmap.$namespace.from" ;;
  'get configmap '*) cat "$FAKE/configmap.$namespace" ;;
  'get pods '*) answer pods ;;
  'create configmap tunnel-addresses') touch "$FAKE/patched.$namespace" ;;
  'patch configmap tunnel-addresses --type merge --patch '*)
    [[ -f $FAKE/patched.$namespace ]]
    echo "$namespace ${args[6]}" >> "$FAKE/patches"
    ;;
  'port-forward '*)
    cat "$FAKE/forward"
    exec sleep 60
    ;;
  'create configmap '*)
    printf '%s' "${args[4]#*=*=}" > "$FAKE/configmap.$namespace.from"
    echo "$namespace ${args[3]}"
    ;;
  'apply --filename -')
    read -r -d '' into literal || true
    printf '%s' "${literal#*=*=}" > "$FAKE/configmap.$into"
    echo "$context" > "$FAKE/told"
    ;;
  'apply --kustomize '*)
    fail_while refuse_apply
    answer applied
    ;;
  'apply '*) fail_while refuse_apply ;;
  'rollout '*)
    [[ ! -f $FAKE/hangs ]] || exec sleep 60
    fail_while stuck
    ;;
  'logs '*) answer "logs.${args[3]}" ;;
  'annotate '*) ;;
  'exec '*'ferry send '*)
    answer proof
    ended proof_code
    ;;
  'exec --stdin '*)
    cat > "$FAKE/stdin"
    answer said
    ended code
    ;;
  'delete namespace '*)
    [[ ! -f $FAKE/namespace.${args[2]} ]] || echo "namespace \"${args[2]}\" deleted"
    ;;
  *)
    echo "fake: what is ${args[*]}?" >&2
    exit 64
    ;;
esac
