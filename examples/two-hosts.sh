#!/bin/sh
# Links this host with another one that ssh reaches, from nothing: a service here is reached from there.
#
#   examples/two-hosts.sh OTHER NAME=HOST:PORT ADDRESS
#   examples/two-hosts.sh a.example.com web=127.0.0.1:8080 b.example.com:18000
#
# ADDRESS is where OTHER reaches this host's tunnel. `ferry` is on the path of both. Files are made in the current
# directory here and in the home directory there; the tunnels run in the background, with their logs next to the files.
set -eu
other=$1 service=$2 address=$3

if [ -e tunnel.yaml ]; then
    echo "tunnel.yaml exists already; with a tunnel that runs: ferry invite | ssh $other ferry join" >&2
    exit 1
fi
token=$(ferry invite --service "$service" --address "$address" --listen "0.0.0.0:${address##*:}")
nohup ferry tunnel --config tunnel.yaml > tunnel.log 2>&1 &
# On standard input: a command line can be seen by everybody on a host.
reached=$(printf '%s\n' "$token" | ssh "$other" ferry join)
ssh "$other" 'nohup ferry tunnel --config tunnel.yaml > tunnel.log 2>&1 < /dev/null &'
echo "on $other: $reached"
