#!/bin/sh
# Two networks that cannot reach each other, `hub` and `cluster`. An agent at the cluster's gate connects out to a server
# at the hub; then a request from the hub reaches a service in the cluster. Needs root, `ip`, `nsenter`, `openssl` and `curl`,
# and takes a program that is built already:
#
#     examples/tunnel/run.sh target/release/cloverleaf
#
# Ctrl-C ends it and removes what it made; with `once` as a second argument it ends after the request.
set -eu

program=$(realpath "${1:-target/release/cloverleaf}")
folder=$(mktemp -d)
pids=""

cleanup() {
    trap - EXIT INT TERM
    for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
    for name in hub gate cluster; do ip netns del "leaf$name" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP PIPE

on() { # on NETWORK COMMAND...: runs a command in a network
    network=$1
    shift
    exec nsenter --net="/run/netns/leaf$network" -- "$@"
}

# The hub and a gate share one network, the gate and the service another. The gate forwards nothing.
for name in hub gate cluster; do
    ip netns add "leaf$name"
    ip -n "leaf$name" link set lo up
done
ip link add eth0 netns leafhub type veth peer name outside netns leafgate
ip link add eth0 netns leafcluster type veth peer name inside netns leafgate
ip -n leafhub addr add 10.97.1.1/24 dev eth0
ip -n leafgate addr add 10.97.1.2/24 dev outside
ip -n leafgate addr add 10.97.2.2/24 dev inside
ip -n leafcluster addr add 10.97.2.1/24 dev eth0
for link in hub:eth0 gate:outside gate:inside cluster:eth0; do
    ip -n "leaf${link%:*}" link set "${link#*:}" up
done

# An authority, a certificate for the server, one for the agent and one for a client.
make() { # make NAME SAN USAGE
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$folder/$1.key" -out "$folder/$1.csr" \
        -subj "/CN=$1" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$2" "$3" >"$folder/$1.ext"
    openssl x509 -req -in "$folder/$1.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 1 \
        -extfile "$folder/$1.ext" -out "$folder/$1.crt" 2>/dev/null
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$folder/ca.key" -out "$folder/ca.crt" \
    -days 1 -subj "/CN=example" 2>/dev/null
make server IP:10.97.1.1 serverAuth
make agent DNS:agent clientAuth
make client DNS:client clientAuth

# The service in the cluster, the server at the hub, the agent at the gate.
(on cluster "$program" echo --listen 10.97.2.1:9090) &
pids="$pids $!"
(on hub "$program" tunnel server --mode=http-connect \
    --server-cert="$folder/server.crt" --server-key="$folder/server.key" --server-ca-cert="$folder/ca.crt" \
    --cluster-cert="$folder/server.crt" --cluster-key="$folder/server.key" --cluster-ca-cert="$folder/ca.crt") &
pids="$pids $!"
(on gate "$program" tunnel agent --proxy-server-host=10.97.1.1 --agent-id=cluster1 \
    --agent-cert="$folder/agent.crt" --agent-key="$folder/agent.key" --ca-cert="$folder/ca.crt") &
pids="$pids $!"

tries=0
until (on hub curl -sf -o /dev/null http://127.0.0.1:8092/readyz); do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || exit 1
    sleep 0.1
done

echo
echo "Directly the service cannot be reached:"
(on hub curl -sS --max-time 2 http://10.97.2.1:9090/hello) || true
echo
echo "Through the tunnel:"
(on hub curl -sS --max-time 5 --proxy https://10.97.1.1:8090 --proxytunnel --proxy-cacert "$folder/ca.crt" \
    --proxy-cert "$folder/client.crt" --proxy-key "$folder/client.key" http://10.97.2.1:9090/hello)
[ "${2:-}" = once ] || wait
