#!/usr/bin/env bash
# Creates an environment with benchmarks/requirements-references.txt on top of the project's packages, and prints the path
# of its interpreter on standard output. For `make bench REFERENCES=1`; the project's own environment is not changed.
#
# It is .venv-references in the project (elsewhere: ATHANOR_REFERENCES=DIR). A reference that requires another version of a
# pinned package of the project (torch above all) cannot be installed: the two sides would not be comparable.
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd && printf x) # the x keeps a newline at the end of a name
root=${root%$'\n'x}
venv=${ATHANOR_REFERENCES:-$root/.venv-references}
list=$root/benchmarks/requirements-references.txt
python=$("$root/scripts/setup_env.sh" music sql market --dev)

digest=$({ "$python" -c 'import sys, torch; print(sys.prefix, sys.version, torch.__version__)'; cat "$list" "$root"/requirements/{core,music,sql,dev}.lock; } |
    sha256sum | cut -d ' ' -f 1)
if [[ -f $venv/.athanor-references && $(< "$venv/.athanor-references") == "$digest" ]]; then
    printf '%s\n' "$venv/bin/python"
    exit 0
fi

printf 'Setting up the reference implementations in %s (once, a minute) ...\n' "$venv" >&2
rm -rf -- "$venv"
"$python" -m venv --without-pip "$venv"
# the project's packages follow the environment's own on the path, and count as installed
"$python" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
    > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/athanor.pth"
held=$(mktemp)
trap 'rm -f -- "$held"' EXIT
"$python" -m pip freeze --disable-pip-version-check | grep -E '^[A-Za-z0-9._-]+==' > "$held"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$held" --requirement "$list" >&2
printf '%s\n' "$digest" > "$venv/.athanor-references"
printf '%s\n' "$venv/bin/python"
