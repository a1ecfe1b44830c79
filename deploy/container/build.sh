#!/usr/bin/env bash
# Makes target/cloverleaf.oci.tar, an OCI image of one static program, from this clone: no base image, no engine, no root.
#   deploy/container/build.sh [PROGRAM]     PROGRAM: a static build that is there already; it is built otherwise
set -euo pipefail
cd "$(dirname "$0")/../.."
here=deploy/container
image=target/cloverleaf.oci.tar
mkdir -p target

case "$(uname -m)" in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) echo "no image for $(uname -m): x86_64 and aarch64 only" >&2; exit 2 ;;
esac

program=${1:-}
if [ -z "$program" ]; then
    # An explicit target keeps the flag away from build scripts and procedural macros, which cannot be static.
    target="$(rustc -vV | sed -n 's/^host: //p')"
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package cloverleaf --target "$target"
    program=target/$target/release/cloverleaf
fi
if ! ldd "$program" 2>&1 | grep -qE 'statically linked|not a dynamic executable'; then
    echo "$program is not static: build it with RUSTFLAGS='-C target-feature=+crt-static' and --target" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
blobs=$work/image/blobs/sha256
mkdir -p "$root/etc/cloverleaf" "$root/etc/ssl/certs" "$blobs"
install -m 0755 "$program" "$root/cloverleaf"
if command -v strip >/dev/null; then strip "$root/cloverleaf"; fi
install -m 0644 "$here/passwd" "$root/etc/passwd"
install -m 0644 "$here/nsswitch.conf" "$root/etc/nsswitch.conf"
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -f "$authorities" ]; then
    install -m 0644 "$authorities" "$root$authorities"
else
    echo "note: $authorities is not here: the image can verify upstreams only by a file that the configuration names" >&2
fi

# Stores a file under its digest and prints `sha256:DIGEST SIZE`.
blob() {
    local digest
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    mv "$1" "$blobs/$digest"
    echo "sha256:$digest $(stat -c %s "$blobs/$digest")"
}

tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" -cf "$work/layer" .
read -r layer layer_size < <(blob "$work/layer")

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
cat >"$work/config" <<JSON
{"architecture":"$arch","os":"linux",
"config":{"User":"65532:65532","ExposedPorts":{"8080/tcp":{}},"WorkingDir":"/etc/cloverleaf",
"Entrypoint":["/cloverleaf"],"Cmd":["gateway","-c","/etc/cloverleaf/cloverleaf.yaml"],
"Labels":{"org.opencontainers.image.title":"cloverleaf","org.opencontainers.image.version":"$version",
"org.opencontainers.image.licenses":"Apache-2.0"}},
"rootfs":{"type":"layers","diff_ids":["$layer"]},"history":[{"created_by":"deploy/container/build.sh"}]}
JSON
read -r config config_size < <(blob "$work/config")

cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$config","size":$config_size},
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$layer","size":$layer_size}]}
JSON
read -r manifest manifest_size < <(blob "$work/manifest")

cat >"$work/image/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",
"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"$manifest","size":$manifest_size,
"platform":{"architecture":"$arch","os":"linux"},
"annotations":{"org.opencontainers.image.ref.name":"$version","io.containerd.image.name":"localhost/cloverleaf:$version"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$work/image" -cf "$image" .
echo "$image: version $version for $arch, $(stat -c %s "$image") bytes"
