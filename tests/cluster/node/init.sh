#!/bin/bash
# Process 1 of a node: mounts that only it sees, then containerd, kubelet and kube-proxy. It reaps orphans.
# FOLDER is the node's own, PROGRAMS holds the kubelet and kube-proxy, NODE is its name, ADDRESS its address.
set -u
hostname "$NODE"
# Hides the host's /run, in this mount namespace only.
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/containerd /run/lock /run/cni-ipam
mkdir -p /var/lib/containerd /var/lib/kubelet /etc/cni/net.d /var/log/pods /var/log/containers
mount --bind "$FOLDER/containerd" /var/lib/containerd
mount --bind "$FOLDER/kubelet" /var/lib/kubelet
# Volumes that the kubelet mounts are seen by containers.
mount --make-shared /var/lib/kubelet
mount --bind "$FOLDER/etc/cni" /etc/cni/net.d
mount --bind "$FOLDER/log/pods" /var/log/pods
mount --bind "$FOLDER/log/containers" /var/log/containers
[ -w /dev/kmsg ] || ln -sf /dev/null /dev/kmsg

containerd --config "$FOLDER/etc/containerd.toml" >"$FOLDER/log/containerd.log" 2>&1 &
for _ in $(seq 100); do
    [ -S /run/containerd/containerd.sock ] && ctr version >/dev/null 2>&1 && break
    sleep 0.1
done
for archive in "$IMAGES"/*.tar; do
    ctr --namespace k8s.io images import "$archive"
done
"$PROGRAMS/kubelet" --config="$FOLDER/etc/kubelet.yaml" --kubeconfig="$FOLDER/etc/kubelet.kubeconfig" \
    --hostname-override="$NODE" --node-ip="$ADDRESS" --root-dir=/var/lib/kubelet \
    --cert-dir=/var/lib/kubelet/pki >"$FOLDER/log/kubelet.log" 2>&1 &
"$PROGRAMS/kube-proxy" --config="$FOLDER/etc/kube-proxy.yaml" >"$FOLDER/log/kube-proxy.log" 2>&1 &
while :; do
    wait -n
    # 127: nothing to wait for just now.
    [ $? = 127 ] && sleep 1
done
