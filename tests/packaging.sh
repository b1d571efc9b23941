#!/bin/sh
# Builds the wheel, installs it with its pinned base dependencies into an empty environment, and runs it there.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$BIN/uv" build --quiet --wheel --out-dir "$work/dist" .
"$PYTHON" -m venv --without-pip "$work/env"
VIRTUAL_ENV="$work/env" "$BIN/uv" pip install --quiet --require-hashes -r requirements/base.txt
VIRTUAL_ENV="$work/env" "$BIN/uv" pip install --quiet --no-deps "$work"/dist/*.whl
cd "$work"
env -i PATH="$work/env/bin:/usr/bin:/bin" HOME="$work" mixpeekctl --version
env -i PATH="$work/env/bin:/usr/bin:/bin" HOME="$work" mixpeekctl --help >/dev/null
size=$(du -sm "$work"/env/lib/python3*/site-packages | cut -f1)
echo "installed size of the package without the extras for models: ${size} MB (limit 150)"
test "$size" -lt 150
