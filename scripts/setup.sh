#!/usr/bin/env bash
# Builds .venv from requirements.lock: Python 3.12 from PATH or pyenv, else fetched by uv; every package is pinned by hash.
set -euo pipefail
cd "$(dirname "$0")/.."

is_312() { "$1" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 12))' 2>/dev/null; }

# pyenv puts shims on PATH that fail for versions that are not selected, so each candidate is executed
find_python() {
  local candidate
  for candidate in python3.12 python3 python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12; do
    if is_312 "$candidate"; then "$candidate" -c 'import sys; print(sys.executable)'; return; fi
  done
  return 1
}

find_uv() {
  local candidate
  for candidate in .venv/bin/uv uv "$HOME/.local/bin/uv" .venv-uv/bin/uv; do
    if "$candidate" --version >/dev/null 2>&1; then echo "$candidate"; return; fi
  done
  return 1
}

started=$(date +%s)
python=$(find_python || true)
if ! uv=$(find_uv); then
  # uv itself is installed from the index into a separate folder, with the version and hash of the lock
  base=${python:-$(command -v python3 || true)}
  if [ -z "$base" ]; then
    echo "setup: no Python 3.12 and no uv on PATH; install one of them (https://docs.astral.sh/uv/) and run the same command again" >&2
    exit 1
  fi
  "$base" -m venv .venv-uv
  # one program, no pipe: a reader that exits early would kill the writer and, with `pipefail`, sometimes the setup
  awk '/^[a-zA-Z]/ { inside = /^uv==/ } inside' requirements.lock > .venv-uv/uv.lock
  .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv-uv/uv.lock
  uv=.venv-uv/bin/uv
fi
if [ -z "$python" ]; then
  echo "setup: no Python 3.12 on PATH or under pyenv; letting uv fetch it" >&2
  if ! "$uv" python install 3.12; then
    echo "setup: no Python 3.12 could be found or fetched; install it (pyenv install 3.12, or your system's package) and run again" >&2
    exit 1
  fi
  python=$("$uv" python find 3.12)
fi

if [ ! -x .venv/bin/python ] || ! is_312 .venv/bin/python; then
  echo "setup: building .venv with $("$python" --version)" >&2
  "$uv" venv --quiet --clear --python "$python" .venv
fi
echo "setup: installing requirements.lock ($(grep -c '==' requirements.lock) packages, exact pins with hashes)" >&2
# if Python may not write bytecode, every process would compile a thousand modules (3 to 9 s): compile them once here
"$uv" pip sync --quiet ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} --python .venv/bin/python --require-hashes requirements.lock
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
touch .venv/.complete
echo "setup: done in $(($(date +%s) - started)) s" >&2
