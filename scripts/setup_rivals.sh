#!/usr/bin/env bash
# Makes an environment that sees the project's own and has benchmarks/requirements-rivals.txt besides, and prints its
# interpreter's path on standard output. For `make bench RIVALS=1`; nothing of it touches the project's environment.
#
# It is .venv-rivals beside the project (elsewhere: ATHANOR_RIVALS=DIR). A rival that wants another version of what the
# project has pinned (torch above all) cannot be installed: the comparison would not be one.
set -euo pipefail
[[ $- == *p* ]] || exec "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd && printf x) # the x keeps a newline at the end of a name
root=${root%$'\n'x}
venv=${ATHANOR_RIVALS:-$root/.venv-rivals}
list=$root/benchmarks/requirements-rivals.txt
python=$("$root/scripts/setup_env.sh" --dev)

digest=$({ "$python" -c 'import sys, torch; print(sys.prefix, sys.version, torch.__version__)'; cat "$list" "$root"/requirements/{core,music,dev}.lock; } |
    sha256sum | cut -d ' ' -f 1)
if [[ -f $venv/.athanor-rivals && $(< "$venv/.athanor-rivals") == "$digest" ]]; then
    printf '%s\n' "$venv/bin/python"
    exit 0
fi

printf 'Setting up the rivals in %s (once, a minute) ...\n' "$venv" >&2
rm -rf -- "$venv"
"$python" -m venv --without-pip "$venv"
# what the project's interpreter sees comes after the rivals' own, and counts as installed
"$python" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
    > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/athanor.pth"
held=$(mktemp)
trap 'rm -f -- "$held"' EXIT
"$python" -m pip freeze --disable-pip-version-check | grep -E '^[A-Za-z0-9._-]+==' > "$held"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$held" --requirement "$list" >&2
printf '%s\n' "$digest" > "$venv/.athanor-rivals"
printf '%s\n' "$venv/bin/python"
