#!/bin/sh
# Three networks: a hub, and two clusters that can reach neither the hub's inside nor each other and let nobody in. An
# agent in each connects out to a tunnel's server at the hub; then gateway.yaml balances over services in both, and
# `tunnel forward` gives a port of the hub to one of them. Needs root, `ip`, `nsenter`, `openssl` and `curl`, and takes a
# program that is built already:
#
#     examples/tunnel/run.sh target/release/cloverleaf
#
# Ctrl-C ends it and removes what it made; with `once` as a second argument it ends by itself.
set -eu

program=$(realpath "${1:-target/release/cloverleaf}")
here=$(dirname "$(realpath "$0")")
folder=$(mktemp -d)
pids=""

cleanup() {
    trap - EXIT INT TERM
    for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
    for name in hub one two; do ip netns del "leaf$name" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP PIPE

on() { # on NETWORK COMMAND...: runs a command in a network
    network=$1
    shift
    exec nsenter --net="/run/netns/leaf$network" -- "$@"
}

until_ok() { # until_ok NETWORK COMMAND...: tries a command until it works, for ten seconds
    tries=0
    until (on "$@") >"$folder/tried" 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { cat "$folder/tried" "$folder"/*.log; exit 1; }
        sleep 0.1
    done
}

# A line from the hub to each cluster. Their insides, 10.96.0.1 and 10.96.0.2, are on neither.
for name in hub one two; do
    ip netns add "leaf$name"
    ip -n "leaf$name" link set lo up
done
ip -n leafhub addr add 10.97.0.1/32 dev lo
for number in 1 2; do
    cluster=$([ "$number" = 1 ] && echo one || echo two)
    ip link add "$cluster" netns leafhub type veth peer name hub netns "leaf$cluster"
    ip -n leafhub addr add "10.97.$number.1/24" dev "$cluster"
    ip -n leafhub link set "$cluster" up
    ip -n "leaf$cluster" addr add "10.97.$number.2/24" dev hub
    ip -n "leaf$cluster" link set hub up
    ip -n "leaf$cluster" route add 10.97.0.1 via "10.97.$number.1"
    ip -n "leaf$cluster" addr add "10.96.0.$number/32" dev lo
done

# An authority, a certificate for the server, one for agents and one for clients.
make() { # make NAME SAN USAGE
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$folder/$1.key" -out "$folder/$1.csr" \
        -subj "/CN=$1" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=%s\n' "$2" "$3" >"$folder/$1.ext"
    openssl x509 -req -in "$folder/$1.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 1 \
        -extfile "$folder/$1.ext" -out "$folder/$1.crt" 2>/dev/null
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$folder/ca.key" -out "$folder/ca.crt" \
    -days 1 -subj "/CN=example" 2>/dev/null
make server IP:10.97.0.1 serverAuth
make agent DNS:agent clientAuth
make client DNS:client clientAuth

# The server at the hub; in each cluster a service and an agent, which says whose it is.
(on hub "$program" tunnel server --proxy-strategies=destHost \
    --server-cert="$folder/server.crt" --server-key="$folder/server.key" --server-ca-cert="$folder/ca.crt" \
    --cluster-cert="$folder/server.crt" --cluster-key="$folder/server.key" --cluster-ca-cert="$folder/ca.crt") \
    2>"$folder/server.log" &
pids="$pids $!"
agent() { # agent CLUSTER: starts one
    (on "$1" "$program" tunnel agent --proxy-server-host=10.97.0.1 --agent-identifiers="host=$1" \
        --agent-cert="$folder/agent.crt" --agent-key="$folder/agent.key" --ca-cert="$folder/ca.crt") \
        2>>"$folder/agent-$1.log" &
    agent=$!
    pids="$pids $agent"
}
for number in 1 2; do
    cluster=$([ "$number" = 1 ] && echo one || echo two)
    (on "$cluster" "$program" echo --listen "10.96.0.$number:80") 2>"$folder/echo-$cluster.log" &
    pids="$pids $!"
    agent "$cluster"
    until_ok "$cluster" curl -sf "http://10.96.0.$number/"
done
until_ok hub sh -c "curl -sf http://127.0.0.1:8092/metrics | grep -q '^konnectivity.*_ready_backend_connections 2\$'"

# Its clients: the gateway, and a port for programs that speak no Konnectivity.
cp "$here/gateway.yaml" "$folder"
(on hub "$program" gateway -c "$folder/gateway.yaml") 2>"$folder/gateway.log" &
pids="$pids $!"
(on hub "$program" tunnel forward --server=10.97.0.1:8090 \
    --ca-cert="$folder/ca.crt" --client-cert="$folder/client.crt" --client-key="$folder/client.key" \
    --listen=127.0.0.1:6443 --to=one/10.96.0.1:80 --socks5=127.0.0.1:1080 --cluster=two) 2>"$folder/forward.log" &
pids="$pids $!"

who() { # who CURL'S ARGUMENTS: which service answers, as it says
    (on hub curl -sS --max-time 5 "$@") | grep -o '"local_address[^,]*' || true
}
up() { # up COUNT: waits until so many endpoints can serve
    until_ok hub sh -c "curl -sf http://127.0.0.1:9180/metrics | grep -c '^cloverleaf_endpoint_up.* 1\$' | grep -qx $1"
}
up 2
until_ok hub curl -sf http://127.0.0.1:8096/readyz

echo "From the hub neither service can be reached:"
(on hub curl -sS --max-time 2 http://10.96.0.1/) || true
echo
echo "A rule of the gateway balances over both:"
for _ in 1 2 3 4; do who http://127.0.0.1:8080/; done
echo
echo "A port of the hub is a port of the first cluster, and by SOCKS5 any of the second is there:"
who http://127.0.0.1:6443/
who --socks5-hostname 127.0.0.1:1080 http://10.96.0.2/
echo
echo "The second cluster is cut off; the first takes all:"
kill -9 "$agent"
up 1
for _ in 1 2 3 4; do who http://127.0.0.1:8080/; done
echo
echo "It is there again:"
agent two
up 2
for _ in 1 2; do who http://127.0.0.1:8080/; done
[ "${2:-}" = once ] || { echo "Everything runs; Ctrl-C ends it."; wait; }
