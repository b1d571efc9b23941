#!/usr/bin/env bash
# Installs the real servers that the tests run on, at pinned versions. Usage: install.sh [NAME]...  (default: all)
# Prints the folder that holds them. Nothing is made twice: a stamp beside each says from what it was made.
# Exit status 3: a tool is missing; the last line on standard error says which.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${MIXPEEK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mixpeek-operator-tests}
bin=$cache/bin
mkdir -p "$bin"

# One line per server: how it is had, and what from.
install() {
  case $1 in
    ferretdb) go_program "$1" . ;;
    s3proxy) maven_jar "$1" ;;
    redis-server) debian_program "$1" redis-server ;;
    mariadbd) debian_program "$1" mariadb-server-core ;;
    etcd | kube-* | kubectl | helm | ray-operator) "$here/kubernetes/build.sh" "$1" >/dev/null ;;
    *) echo "unknown server $1" >&2; exit 2 ;;
  esac
}

need() { command -v "$1" >/dev/null || { echo "needs $2 to install $name" >&2; exit 3; }; }

fresh() { # NAME HASH: whether what is there was made from this
  [ -e "$bin/$1" ] && [ "$(cat "$bin/.$1.stamp" 2>/dev/null)" = "$2" ]
}

go_program() { # NAME PACKAGE: the module in the folder NAME, versions and hashes from its go.mod and go.sum
  local want
  want=$(cd "$here/$1" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
  fresh "$1" "$want" && return
  need go "Go 1.22 or newer"
  echo "building $1" >&2
  (cd "$here/$1" && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags="-s -w" -o "$bin/$1.new" "$2")
  mv "$bin/$1.new" "$bin/$1"
  echo "$want" >"$bin/.$1.stamp"
}

maven_jar() { # NAME: the artifact in NAME/pin, `group:artifact:version:packaging:classifier sha256`
  local artifact sum folder
  read -r artifact sum <"$here/$1/pin"
  fresh "$1" "$sum" && return
  need mvn "Maven"
  echo "fetching $1" >&2
  folder=$(mktemp -d)
  mvn -q -B dependency:copy -Dartifact="$artifact" -DoutputDirectory="$folder" >&2
  echo "$sum  $(echo "$folder"/*)" | sha256sum --check --quiet >&2
  mv "$folder"/* "$bin/$1"
  rmdir "$folder"
  echo "$sum" >"$bin/.$1.stamp"
}

debian_program() { # COMMAND PACKAGE: what is on PATH, else Debian's package
  PATH=$PATH:/usr/sbin command -v "$1" >/dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "needs $1 on PATH (Debian: apt-get install $2)" >&2; exit 3; }
  echo "installing $2" >&2
  { DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "$2" ||
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "$2"; }; } >&2
}

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(ferretdb redis-server s3proxy)
# Two test workers must not install side by side: the second waits and finds everything there.
exec 9>"$cache/.install.lock"
flock 9
for name in "${names[@]}"; do install "$name"; done
echo "$bin"
