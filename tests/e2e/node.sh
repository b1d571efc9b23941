#!/usr/bin/env bash
# A real cluster of one node: control plane, containerd, runc, kubelet, kube-proxy, CoreDNS and CNI, in mount, network and
# pid namespaces of its own. Its network has no way out, the machine's is not touched, and `down` ends everything.
# Usage: node.sh check | up [archive.tar…] | load archive.tar… | exec command… | status | down | wipe     (needs root)
#   check   says what this machine lacks to run it, with exit status 3
#   up      starts it and imports images;  exec runs inside, where cluster IPs, pod IPs and names are reachable
#   MIXPEEK_E2E_DIR   its data (default: a folder of the tests' cache)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MIXPEEK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mixpeek-operator-tests}
dir=${MIXPEEK_E2E_DIR:-$cache/e2e}
bin=$cache/bin holder=$dir/holder.pid
gateway=10.244.0.1 pods=10.244.0.0/16 services=10.96.0.0/16 service_ip=10.96.0.1 server=https://10.244.0.1:6443
packages=(containerd runc containernetworking-plugins nftables debootstrap openssl iproute2 procps)
disk_gib=30 memory_gib=9
programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy coredns pause)
tokens=(admin system:kube-controller-manager system:kube-scheduler system:kube-proxy system:node:e2e coredns)

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
lap() { say "$1: $((SECONDS - since)) s"; since=$SECONDS; }

inside() { # the pid that is 1 inside, when the cluster is up
  local outer
  outer=$(cat "$holder" 2>/dev/null) && [ "$(readlink "/proc/$outer/exe")" = "$(readlink -f "$(command -v unshare)")" ] &&
    pgrep -P "$outer" -x pause
}

enter() { # command…: run inside
  local pid
  pid=$(inside) || die "the cluster is not up"
  nsenter -t "$pid" -m -n -p --wd="$PWD" env KUBECONFIG="$dir/kubeconfig" PATH="$bin:$PATH" NO_PROXY='*' no_proxy='*' "$@"
}

start() { # name args…: a program inside, its output in log/
  local name=$1 exe; shift
  exe=$(command -v "$bin/$name" || command -v "$name")
  # shellcheck disable=SC2016
  enter sh -c 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 &' sh "$dir/log/$name.log" "$exe" "$@"
}

until_ok() { # seconds what command…
  local tries=$(($1 * 5)) what=$2; shift 2
  for _ in $(seq "$tries"); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
  tail -n 5 "$dir"/log/*.log >&2
  die "$what: not ready"
}

certificates() {
  local pki=$dir/pki ec=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  [ -f "$pki/kubelet.crt" ] && return
  mkdir -p "$pki"; chmod 700 "$pki"
  openssl req -x509 "${ec[@]}" -days 3650 -subj /CN=e2e -keyout "$pki/ca.key" -out "$pki/ca.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null
  openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
  sign() { # name subject extensions
    openssl req "${ec[@]}" -subj "$2" -keyout "$pki/$1.key" -out "$pki/$1.csr" 2>/dev/null
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 3650 \
      -extfile <(printf '%b' "$3") -out "$pki/$1.crt" 2>/dev/null
  }
  sign client /O=system:masters/CN=apiserver 'extendedKeyUsage=clientAuth\n'
  sign apiserver /CN=kube-apiserver "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,IP:$gateway,IP:$service_ip,DNS:kubernetes.default.svc\n"
  sign kubelet /O=system:nodes/CN=system:node:e2e "extendedKeyUsage=serverAuth\nsubjectAltName=IP:$gateway,DNS:e2e\n"
}

identities() { # every component is a subject of its own, with a token and a kubeconfig
  local user group token file
  [ -f "$dir/tokens.csv" ] && return
  for user in "${tokens[@]}"; do
    case $user in admin) group=system:masters ;; system:node:*) group=system:nodes ;; *) group=system:authenticated ;; esac
    token=$(openssl rand -hex 16)
    file=$dir/$user.kubeconfig; [ "$user" != admin ] || file=$dir/kubeconfig
    (umask 077
      echo "$token,$user,$user,\"$group\"" >>"$dir/tokens.part"
      cat >"$file" <<T
apiVersion: v1
kind: Config
current-context: e2e
clusters: [{name: e2e, cluster: {server: "$server", certificate-authority-data: $(base64 -w0 "$dir/pki/ca.crt")}}]
users: [{name: "$user", user: {token: $token}}]
contexts: [{name: e2e, context: {cluster: e2e, user: "$user"}}]
T
    )
  done
  mv "$dir/tokens.part" "$dir/tokens.csv"
}

configurations() {
  mkdir -p "$dir"/{cni,log,varlog,containerd,kubelet,volumes}
  echo "nameserver $gateway" >"$dir/resolv.conf"
  cat >"$dir/containerd.toml" <<T
version = 2
root = "$dir/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:e2e"
restrict_oom_score_adj = true   # where CAP_SYS_RESOURCE is missing no score may go below our own
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni"
T
  cat >"$dir/cni/10-e2e.conflist" <<T
{"cniVersion": "0.4.0", "name": "e2e", "plugins": [
  {"type": "bridge", "bridge": "e2e0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "$pods", "rangeStart": "10.244.1.1", "gateway": "$gateway"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
T
  cat >"$dir/kubelet.yaml" <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false   # older machines have version 1 only
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$dir/pki/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: $dir/pki/kubelet.crt
tlsPrivateKeyFile: $dir/pki/kubelet.key
address: $gateway
healthzBindAddress: 127.0.0.1
clusterDNS: [$gateway]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
failSwapOn: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 200Mi, nodefs.available: 1%, imagefs.available: 1%}
fileCheckFrequency: 0s
T
  cat >"$dir/kube-proxy.yaml" <<T
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $pods
clientConnection: {kubeconfig: "$dir/system:kube-proxy.kubeconfig"}
hostnameOverride: e2e
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0}
T
  cat >"$dir/Corefile" <<T
cluster.local in-addr.arpa {
  bind $gateway
  errors
  cache 1
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $dir/coredns.kubeconfig
    ttl 1
  }
}
T
}

control_plane() {
  local pki=$dir/pki etcd=http://127.0.0.1:2379 component
  start etcd --name e2e --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls $etcd --advertise-client-urls $etcd --listen-peer-urls http://127.0.0.1:2380 \
    --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster e2e=http://127.0.0.1:2380
  start kube-apiserver --etcd-servers $etcd --bind-address $gateway --secure-port 6443 --advertise-address $gateway \
    --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" --client-ca-file "$pki/ca.crt" \
    --token-auth-file "$dir/tokens.csv" --kubelet-client-certificate "$pki/client.crt" \
    --kubelet-client-key "$pki/client.key" --kubelet-certificate-authority "$pki/ca.crt" \
    --kubelet-preferred-address-types InternalIP --authorization-mode Node,RBAC --allow-privileged --profiling=false \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$pki/sa.pub" \
    --service-account-signing-key-file "$pki/sa.key" --service-cluster-ip-range $services
  until_ok 90 kube-apiserver enter kubectl get --raw /readyz
  for component in kube-controller-manager kube-scheduler; do
    local config=$dir/system:$component.kubeconfig more=()
    [ $component = kube-scheduler ] || more=(--use-service-account-credentials --allocate-node-cidrs=false
      --service-account-private-key-file "$pki/sa.key" --root-ca-file "$pki/ca.crt")
    start $component --kubeconfig "$config" --authentication-kubeconfig "$config" --authorization-kubeconfig "$config" \
      --bind-address 127.0.0.1 --leader-elect=false --profiling=false "${more[@]}"
  done
  until_ok 90 "service accounts" enter kubectl -n default get serviceaccount default
}

lacks() { say "a node cannot run on this machine: $*"; exit 3; }

check() { # before anything is downloaded
  local program package cgroups missing=() at=$cache
  [ "$(uname -s)" = Linux ] || lacks "it is not Linux"
  [ "$(id -u)" = 0 ] || lacks "not root"
  for package in "${packages[@]}"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  [ ${#missing[@]} = 0 ] || grep -qs '^VERSION_CODENAME=bookworm' /etc/os-release ||
    lacks "it is not Debian 12 and has not all of ${missing[*]}"
  for program in "${programs[@]}" helm ray-operator; do
    [ -x "$bin/$program" ] || command -v go >/dev/null || lacks "no Go to build $program"
  done
  # shellcheck disable=SC2016
  unshare --mount --net --pid --fork --kill-child sh -ec 'mount -t tmpfs tmpfs /mnt && cd /mnt && mkdir a b c d
    mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c,volatile d' 2>/dev/null ||
    lacks "no namespaces with mounts of their own (overlay among them)"
  cgroups=/sys/fs/cgroup; [ ! -d $cgroups/memory ] || cgroups=$cgroups/memory
  { mkdir $cgroups/mixpeek-e2e && rmdir $cgroups/mixpeek-e2e; } 2>/dev/null || lacks "no cgroups to write to"
  while [ ! -d "$at" ]; do at=$(dirname "$at"); done
  [ "$(df --output=avail -k "$at" | tail -n 1)" -ge $((disk_gib << 20)) ] || lacks "less than $disk_gib GiB free below $at"
  [ "$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)" -ge $((memory_gib << 20)) ] || lacks "less than $memory_gib GiB of memory free"
}

load() { # archive… (- is standard input)
  local archive
  for archive in "$@"; do enter ctr -n k8s.io images import "$archive" >/dev/null; say "imported $(basename "$archive")"; done
}

up() {
  local since=$SECONDS archives=("$@") missing=() package key
  [ "$(id -u)" = 0 ] || die "needs root: namespaces, mounts and cgroups"
  if inside >/dev/null; then say "already up"; return; fi
  for package in "${packages[@]}"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  if [ ${#missing[@]} -gt 0 ]; then
    apt-get update >/dev/null && apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null ||
      die "needs the Debian packages ${missing[*]}"
  fi
  lap "Debian packages"
  "$here/../servers/kubernetes/build.sh" "${programs[@]}" >/dev/null
  lap "programs"
  mkdir -p "$dir"; certificates; identities; configurations
  setsid unshare --mount --net --pid --fork --mount-proc --kill-child "$bin/pause" </dev/null >/dev/null 2>&1 &
  echo $! >"$holder"
  until_ok 5 namespaces inside
  enter sh -ec '
    mount --make-rshared /
    mount -t tmpfs tmpfs /run
    mount --bind "$1/varlog" /var/log
    mount --bind "$1/resolv.conf" /etc/resolv.conf
    mkdir -p /run/lock
    ip link set lo up
    ip link add e2e0 type bridge
    ip addr add "$2/16" dev e2e0
    ip link set e2e0 up
    ip route add "$3" dev e2e0   # cluster IPs need some route before kube-proxy rewrites them
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables   # a pod reaches another one through its ClusterIP
  ' sh "$dir" $gateway $services
  control_plane
  lap "control plane"
  start containerd --config "$dir/containerd.toml"
  until_ok 30 containerd enter ctr version
  (cd "$here/../.." && python3 -m tests.e2e.program "$bin/pause" /pause localhost/pause:e2e "$dir/pause.tar")
  load "$dir/pause.tar" "${archives[@]}"
  lap "containerd and images"
  enter kubectl apply -f "$here/cluster.yaml" >/dev/null
  # The kubelet sets these for the whole machine as it starts: put them back.
  local -A kernel
  for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops; do kernel[$key]=$(cat /proc/sys/$key); done
  start coredns -conf "$dir/Corefile"
  start kube-proxy --config "$dir/kube-proxy.yaml"
  start kubelet --config "$dir/kubelet.yaml" --kubeconfig "$dir/system:node:e2e.kubeconfig" --root-dir "$dir/kubelet" \
    --hostname-override e2e --node-ip $gateway
  until_ok 60 node enter kubectl wait --for=condition=Ready node/e2e --timeout=1s
  for key in "${!kernel[@]}"; do echo "${kernel[$key]}" >/proc/sys/"$key"; done
  lap "node Ready"
}

status() { enter kubectl get nodes,pods --all-namespaces -o wide; }

down() {
  local outer tree
  if inside >/dev/null; then
    outer=$(cat "$holder")
    kill -9 "$(inside)"   # pid 1 of the namespace: the kernel ends every process inside
    for _ in $(seq 100); do [ -d "/proc/$outer" ] || break; sleep 0.1; done
  fi
  rm -f "$holder"
  for tree in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do   # cgroups are the machine's
    [ ! -d "$tree" ] || find "$tree" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
}

case ${1:-} in
  check|up|load) "$@" ;;
  exec) shift; enter "$@" ;;
  status|down) "$1" ;;
  wipe) down; rm -rf "$dir" ;;
  *) sed -n '2,7s/^# //p' "$0" >&2; exit 2 ;;
esac
