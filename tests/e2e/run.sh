#!/usr/bin/env bash
# Builds our images, starts a real cluster of one node, runs the tests in it, and leaves nothing but the cache.
# Usage: run.sh [pytest option…]     (needs root; MIXPEEK_E2E_KEEP=1 leaves the cluster up to look at)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
cache=${MIXPEEK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mixpeek-operator-tests}
python=${PYTHON:-.venv/bin/python}
images=$cache/images
lap() { printf '%s: %s s\n' "$1" $((SECONDS - since)) >&2; since=$SECONDS; }
since=$SECONDS

command -v debootstrap >/dev/null || { apt-get update && apt-get install -y --no-install-recommends debootstrap; } >/dev/null
tests/servers/install.sh ferretdb redis-server s3proxy >/dev/null
tests/servers/kubernetes/build.sh helm kubectl ray-operator >/dev/null
kuberay=github.com/ray-project/kuberay/ray-operator
config=$(cd tests/servers/kubernetes/go/kuberay && go mod download "$kuberay" && go list -m -f '{{.Dir}}' "$kuberay")/config
mkdir -p "$images"
"$python" -m tests.e2e.program "$cache/bin/ray-operator" /manager localhost/kuberay-operator:e2e "$images/kuberay.tar"
lap "programs"
"$python" -m tests.e2e.images operator=mixpeek-operator:0.1.0 engine=mixpeek-engine:0.1.0 --out "$images" >/dev/null
lap "images"
[ -n "${MIXPEEK_E2E_KEEP:-}" ] || trap '"$here/node.sh" wipe' EXIT
"$here/node.sh" up "$images/kuberay.tar" "$images/operator.tar" "$images/engine.tar"
lap "node"
"$here/node.sh" exec env MIXPEEK_E2E="$config" "$python" -m pytest -p no:cacheprovider -x tests/e2e "$@"
lap "tests"
