#!/usr/bin/env bash
# Builds a Kubernetes control plane from the Go module proxy, at the versions that go/*/go.mod pin.
# Usage: build.sh [etcd|kube-…|kubectl|kubelet|helm|ray-operator|coredns|pause]...
# Prints the folder that holds the programs. Nothing is built twice: a stamp beside each says from what it was built.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MIXPEEK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mixpeek-operator-tests}
bin=$cache/bin
mkdir -p "$bin"
export CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" GOTOOLCHAIN=${GOTOOLCHAIN:-local}

programs=("$@")
[ ${#programs[@]} -gt 0 ] || programs=(etcd kube-apiserver kube-controller-manager kubectl)

# Two test runs must not build side by side: the second waits and finds everything built.
exec 9>"$cache/.kubernetes.lock"
flock 9

for program in "${programs[@]}"; do
  case $program in
    etcd) module=etcd package=go.etcd.io/etcd/server/v3 ;;
    kube-*|kubectl|kubelet) module=kube package=k8s.io/kubernetes/cmd/$program ;;
    helm) module=helm package=helm.sh/helm/v3/cmd/helm ;;
    ray-operator) module=kuberay package=github.com/ray-project/kuberay/ray-operator ;;
    coredns|pause) module=$program package=. ;;
    *) echo "unknown program $program" >&2; exit 2 ;;
  esac
  want=$(cat "$here/go/$module"/* | sha256sum | cut -d' ' -f1)
  made=$(cat "$bin/.$program.stamp" 2>/dev/null || true)
  [ -x "$bin/$program" ] && [ "$made" = "$want" ] && { [ "$program" != ray-operator ] || [ -d "$bin/kuberay-crds" ]; } && continue
  command -v go >/dev/null || { echo "needs Go 1.26 or newer to build $program" >&2; exit 3; }
  flags="-s -w"
  if [ "$module" = kube ]; then # what `kubectl version` and the feature gates read
    version=$(cd "$here/go/kube" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
    minor=${version#v1.}; minor=${minor%%.*}
    for path in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      flags+=" -X $path.gitVersion=$version -X $path.gitMajor=1 -X $path.gitMinor=$minor -X $path.gitTreeState=clean"
    done
  fi
  echo "building $program" >&2
  (cd "$here/go/$module" && go build -trimpath -ldflags="$flags" -o "$bin/$program.new" "$package")
  mv "$bin/$program.new" "$bin/$program"
  if [ "$program" = ray-operator ]; then # its definitions come with it
    source=$(cd "$here/go/$module" && go list -m -f '{{.Dir}}' "$package")
    mkdir -p "$bin/kuberay-crds"
    install -m 644 "$source"/config/crd/bases/*.yaml "$bin/kuberay-crds"
  fi
  echo "$want" >"$bin/.$program.stamp"
done
echo "$bin"
