#!/usr/bin/env bash
# The runner under its older name.
set -euo pipefail
exec "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../train_cuda.sh" "$@"
