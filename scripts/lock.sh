#!/usr/bin/env bash
# Resolves requirements.in and requirements-dev.in afresh, in throw-away environments, and pins what came out.
# CUDA packages are left out on purpose: torch itself pins the exact ones it needs, and a CPU build needs none.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

freeze() {  # freeze INTO FROM...
    local into=$1
    shift
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "${@/#/--requirement=}"
    "$work/venv/bin/pip" freeze --disable-pip-version-check |
        sed -E 's/^(torch==[0-9.]+).*/\1/' | grep -viE '^(nvidia-|cuda-|triton)' > "$into"
    rm -rf -- "$work/venv"
}

{
    echo "# Made by scripts/lock.sh from requirements.in. Python 3.11 to 3.13."
    freeze "$work/runtime" requirements.in
    cat "$work/runtime"
    # librosa and audioread ask for these where the standard library no longer has them
    for name in audioop-lts==0.2.2 standard-aifc==3.13.0 standard-chunk==3.13.0 standard-sunau==3.13.0; do
        grep -q "^${name%%==*}==" "$work/runtime" || echo "$name ; python_version >= '3.13'"
    done
} > requirements.lock.new
{
    echo "# Made by scripts/lock.sh from requirements-dev.in: what tests and lint need on top of requirements.lock."
    echo "-r requirements.lock"
    freeze "$work/all" requirements.lock.new requirements-dev.in
    grep -vxFf "$work/runtime" "$work/all"
} > requirements-dev.lock.new
mv requirements.lock.new requirements.lock
mv requirements-dev.lock.new requirements-dev.lock
