#!/bin/sh
# Three hosts of a cluster, each in a network namespace of its own, with cluster ports between them. Needs root, `ip`
# and `nsenter`, and takes a program that is built already:
#
#     examples/mesh/run.sh target/release/cloverleaf
#
# Ctrl-C ends it and removes what it made.
set -eu

program=$(realpath "${1:-target/release/cloverleaf}")
folder=$(mktemp -d)
pids=""

cleanup() {
    trap - EXIT INT TERM
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for host in 1 2 3; do ip netns del "leaf$host" 2>/dev/null || true; done
    ip netns del leafswitch 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP PIPE

on() { # on HOST COMMAND...: runs a command on a host
    host=$1
    shift
    nsenter --net="/run/netns/leaf$host" -- "$@"
}

# A switch, and three hosts at it: 10.99.0.1, 10.99.0.2, 10.99.0.3.
ip netns add leafswitch
ip -n leafswitch link add br0 type bridge
ip -n leafswitch link set br0 up
for host in 1 2 3; do
    ip netns add "leaf$host"
    ip -n "leaf$host" link set lo up
    ip link add eth0 netns "leaf$host" type veth peer name "host$host" netns leafswitch
    ip -n leafswitch link set "host$host" master br0 up
    ip -n "leaf$host" addr add "10.99.0.$host/24" dev eth0
    ip -n "leaf$host" link set eth0 up
done

# What the Simplenetes tools would write. Cluster port 61000 has a pod on the second and on the third host.
for host in 1 2 3; do
    mkdir "$folder/$host"
    printf 'HOST 10.99.0.%s\n' "$host" > "$folder/$host/proxy.conf"
    printf '10.99.0.1:32767\n10.99.0.2:32767\n10.99.0.3:32767\n' > "$folder/$host/hosts.conf"
    : > "$folder/$host/portmappings.conf"
done
for host in 2 3; do
    echo '61000:30000:100:false' > "$folder/$host/portmappings.conf"
    on "$host" "$program" echo --listen "10.99.0.$host:30000" 2> "$folder/$host/pod.log" &
    pids="$pids $!"
done
for host in 1 2 3; do
    on "$host" "$program" mesh "$folder/$host/proxy.conf" 2> "$folder/$host/mesh.log" &
    pids="$pids $!"
done
for host in 1 2 3; do
    tries=0
    until on "$host" curl -sf -o "$folder/ready" http://127.0.0.1:9180/readyz; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { cat "$folder/$host/mesh.log"; exit 1; }
        sleep 0.1
    done
done

echo "The first host has no pod. Six connections to cluster port 61000 there go to the other two:"
for _ in 1 2 3 4 5 6; do
    # The echo says which pod it is.
    on 1 curl -s http://10.99.0.1:61000/ | grep -o '"local_address[^,]*'
done
echo
echo "What the first host says of itself:"
on 1 "$program" status
echo
echo "The third host's pod is gone (an empty portmappings.conf); the second takes all:"
: > "$folder/3/portmappings.conf"
sleep 0.3
on 1 curl -s -o "$folder/answer" -w 'status %{http_code}\n' http://10.99.0.1:61000/
echo
echo "Everything runs. Look around, for example:"
echo "    nsenter --net=/run/netns/leaf1 -- curl http://10.99.0.1:61000/"
echo "    nsenter --net=/run/netns/leaf1 -- ss -ltn"
echo "    edit $folder/3/portmappings.conf"
[ -t 0 ] || exit 0
echo "Return ends it."
read -r _
