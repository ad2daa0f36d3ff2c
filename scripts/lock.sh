#!/usr/bin/env bash
# Pins the dependencies of pyproject.toml in requirements/: core.lock, and one file for each extra with what it needs
# beyond the core. All come from one resolution, so that any of them fit together. They hold for Python 3.11 to 3.13 and
# name no index: where packages come from is configured on each host.
#
#   scripts/lock.sh [--upgrade]
#
# The versions pinned now are kept where they still fit; --upgrade takes the newest. CUDA packages are left out: torch
# itself pins the exact ones that it needs, and a CPU build needs none.
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd && printf x) # the x keeps a newline at the end of a name
root=${root%$'\n'x}
cd -- "$root"
unset -v PYTHONPATH
# shellcheck source=scripts/installer.sh
source scripts/installer.sh

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
find_base
find_uv "$root/.venv/bin/uv" "$work/uv"
[[ -n $uv ]] || die "lock.sh needs uv $uv_version or newer: pip install uv"
configure_uv
unset UV_FIND_LINKS # a local build of torch is for one version of Python, and a lock is for three

compile() { # compile INTO OPTIONS...: pins of the core and of what the options add
    local into=$1
    shift
    "$uv" pip compile "${uv_arguments[@]}" --universal --python-version 3.11 --no-header --no-annotate \
        --no-emit-index-url --output-file "$into" "$@" pyproject.toml > /dev/null
    sed -E 's/^(torch==[0-9.]+)\+[^ ]*/\1/' "$into" |
        grep -vE "^(nvidia-|cuda-|triton=)|sys_platform == 'win32'" > "$into.kept"
}

mapfile -t extras < <("$base" -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"], sep="\n")')

cat requirements/*.lock 2> /dev/null | grep '==' | sort -u > "$work/all" || true
compile "$work/all" --all-extras "$@"
compile "$work/core" --constraints "$work/all"
mkdir -p requirements
{
    echo "# Made by scripts/lock.sh from pyproject.toml: the core. Python 3.11 to 3.13."
    cat "$work/core.kept"
} > requirements/core.lock
for extra in "${extras[@]}"; do
    compile "$work/$extra" --constraints "$work/all" --extra "$extra"
    {
        echo "# Made by scripts/lock.sh from pyproject.toml: what the extra '$extra' needs beyond the core."
        echo "-r core.lock"
        grep -vxFf "$work/core.kept" "$work/$extra.kept" || true
    } > "requirements/$extra.lock"
done
for file in requirements/*.lock; do # of an extra that is no more
    file=${file#requirements/}
    [[ " core ${extras[*]} " == *" ${file%.lock} "* ]] || rm -- "requirements/$file"
done
