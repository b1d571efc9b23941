#!/usr/bin/env bash
# Builds our images, starts a real cluster of one node, runs the tests in it, and leaves nothing but the cache, however it ends.
# Usage: run.sh [pytest option…]     (needs root; MIXPEEK_E2E_KEEP=1 leaves the cluster up to look at)
# Exit status 3: this machine cannot run a node; the last line on standard error says what it lacks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
cache=${MIXPEEK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mixpeek-operator-tests}
python=${PYTHON:-.venv/bin/python}
images=$cache/images
since=$SECONDS job='' watcher=''

lap() { printf '%s: %s s\n' "$1" $((SECONDS - since)) >&2; since=$SECONDS; }

run() { # command…: in a process group of its own, so that a signal is heard at once and ends all of it
  set -m; "$@" 8>&- & job=$!; set +m
  wait "$job"; job=''
}

end() {
  trap '' INT TERM HUP
  [ -z "$job" ] || kill -KILL -- "-$job" 2>/dev/null || true
  [ -n "${MIXPEEK_E2E_KEEP:-}" ] || "$here/node.sh" wipe
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
}

"$here/node.sh" check
mkdir -p "$images"
# One node on a machine at a time: cgroups and the data's folder are the machine's.
exec 8>"$cache/.e2e.lock"
flock 8
"$here/node.sh" wipe
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -z "${MIXPEEK_E2E_KEEP:-}" ]; then # for the signal that nobody hears
  # shellcheck disable=SC2016
  setsid sh -c 'tail --pid="$1" -f /dev/null; exec "$2" wipe' sh $$ "$here/node.sh" </dev/null >/dev/null 2>&1 &
  watcher=$!
fi

command -v debootstrap >/dev/null || { apt-get update && apt-get install -y --no-install-recommends debootstrap; } >/dev/null
run tests/servers/install.sh ferretdb redis-server s3proxy >/dev/null
run tests/servers/kubernetes/build.sh helm kubectl ray-operator >/dev/null
kuberay=github.com/ray-project/kuberay/ray-operator
config=$(cd tests/servers/kubernetes/go/kuberay && go mod download "$kuberay" && go list -m -f '{{.Dir}}' "$kuberay")/config
"$python" -m tests.e2e.program "$cache/bin/ray-operator" /manager localhost/kuberay-operator:e2e "$images/kuberay.tar"
lap "programs"
ours=(setpriv --pdeathsig KILL "$python" -m tests.e2e.images --work "$images")
ours+=(operator=mixpeek-operator:0.1.0 engine=mixpeek-engine:0.1.0)
run "${ours[@]}"
lap "images"
run "$here/node.sh" up "$images/kuberay.tar"
lap "node"
load() { "${ours[@]}" --archive | "$here/node.sh" load -; }
run load
lap "import"
run "$here/node.sh" exec env MIXPEEK_E2E="$config" "$python" -m pytest -v -p no:cacheprovider -x tests/e2e "$@"
lap "tests"
