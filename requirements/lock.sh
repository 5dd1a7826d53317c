#!/usr/bin/env bash
# Resolve pyproject.toml into requirements/cpu.lock and gpu.lock with hashes; needs uv on the PATH.
# The wheel of torch+cpu must be findable: name a folder or index that has it in UV_FIND_LINKS or UV_EXTRA_INDEX_URL.
set -euo pipefail
cd "$(dirname "$0")/.."
common=(pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet)
# Text models need none of the three, and the builds that the registry offers do not fit the CPU build of torch.
uv "${common[@]}" --extra cpu --output-file requirements/cpu.lock \
  --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec
env -u UV_FIND_LINKS -u UV_EXTRA_INDEX_URL uv "${common[@]}" --extra gpu --python-platform x86_64-manylinux_2_28 \
  --output-file requirements/gpu.lock
