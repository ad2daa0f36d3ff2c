#!/usr/bin/env bash
# Makes the Python environment that everything runs in, once, and prints its interpreter's path on standard output.
#
#   scripts/setup_env.sh [--dev] [--check] [--cpu]
#
# --dev: tests and lint too    --check: use what is there, install nothing    --cpu: any torch will do, no GPU is used
#
# The environment is .venv beside the project (elsewhere: ATHANOR_VENV=DIR). It is made again when the lock or the
# Python changes; otherwise this takes milliseconds. Where the host's Python already has a fitting torch (a rented
# pod's image), the environment sees that one instead of fetching another; where it has none, the build of torch is
# chosen that the NVIDIA driver can run (scripts/torch_index.sh; TORCH_INDEX=URL decides instead).
# ATHANOR_PYTHON=FILE uses that interpreter as it is. Exit 6: something is missing on the host, and the message names
# the line that installs it.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=${ATHANOR_VENV:-$root/.venv}
lock=$root/requirements.lock
kind=runtime
check=no cpu=no
for argument in "$@"; do
    case $argument in
        --dev) lock=$root/requirements-dev.lock kind=dev ;;
        --check) check=yes ;;
        --cpu) cpu=yes ;;
        *) echo "setup_env.sh: unknown argument $argument" >&2; exit 2 ;;
    esac
done

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 6; }

if [[ -n ${ATHANOR_PYTHON:-} ]]; then
    [[ -x $ATHANOR_PYTHON ]] || die "ATHANOR_PYTHON=$ATHANOR_PYTHON is not a program."
    printf '%s\n' "$ATHANOR_PYTHON"
    exit 0
fi

digest=$(cat "$root/requirements.lock" "$root/requirements-dev.lock" | sha256sum | cut -d ' ' -f 1)
fresh() { # is the environment complete for this lock? A dev environment serves as a runtime one.
    local wanted
    # a TORCH_INDEX given now must be the one that torch came from (a borrowed torch came from none)
    [[ -z ${TORCH_INDEX+given} || ! -f $venv/.athanor-torch || $(< "$venv/.athanor-torch") == "$TORCH_INDEX" ]] || return 1
    for wanted in "$kind" dev; do
        [[ -f $venv/.athanor-$wanted && $(< "$venv/.athanor-$wanted") == "$digest" && -x $venv/bin/python ]] && return 0
    done
    return 1
}

if fresh; then
    printf '%s\n' "$venv/bin/python"
    exit 0
fi
if [[ $check == yes ]]; then
    die "there is no finished environment in $venv for this version. Leave out --skip-build once to make it."
fi

base=
for candidate in "${ATHANOR_BASE_PYTHON:-}" python3 python python3.13 python3.12 python3.11; do
    if command -v "$candidate" > /dev/null &&
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null; then
        base=$(command -v "$candidate")
        break
    fi
done
[[ -n $base ]] || die "Python 3.11, 3.12 or 3.13 is needed and none was found. On Debian or Ubuntu:
    sudo apt-get install python3 python3-venv"
"$base" -c 'import venv, ensurepip' 2> /dev/null || die "$base cannot make environments. On Debian or Ubuntu:
    sudo apt-get install python3-venv"

exec 9> "$venv.lock"
if ! flock --nonblock 9; then
    say "Another process is setting up $venv; waiting for it."
    flock 9
    if fresh; then
        printf '%s\n' "$venv/bin/python"
        exit 0
    fi
fi

torch=$(sed -n 's/^torch==\([0-9]*\.[0-9]*\).*/\1/p' "$root/requirements.lock")
# version and folder of the torch that the host's Python has, if it has one
mapfile -t found < <("$base" -c 'import importlib.metadata as m
torch = m.distribution("torch")
print(torch.version, torch.locate_file("").resolve(), sep="\n")' 2> /dev/null || true)
borrowed=
wanted=$lock
requirements=$(mktemp -d)
trap 'rm -rf -- "$requirements"' EXIT
if [[ ${found[0]:-} == "$torch".* ]]; then
    say "Using the torch ${found[0]} that $base already has."
    borrowed=${found[1]}
    # the same lock without its torch line; the dev lock includes the runtime one by name, so both are rewritten
    for file in requirements.lock requirements-dev.lock; do
        grep -v '^torch==' "$root/$file" > "$requirements/$file"
    done
    wanted=$requirements/$(basename -- "$lock")
elif ((${#found[@]})); then
    say "$base has torch ${found[0]}; Athanor is proven with $torch, so its environment gets its own."
fi

index=''
if [[ -z $borrowed ]]; then
    if [[ $cpu == no ]]; then
        index=$("$root/scripts/torch_index.sh")
    else
        index=${TORCH_INDEX:-}
    fi
fi

started=$SECONDS
say "Setting up $venv with $("$base" --version) ($kind; once, a few minutes) ..."
if [[ ! -x $venv/bin/python ]] || ! "$venv/bin/python" -c 'import pip' 2> /dev/null ||
    [[ $("$venv/bin/python" -c 'import sys; print(sys.version_info[:2])') != $("$base" -c 'import sys; print(sys.version_info[:2])') ]]; then
    rm -rf -- "$venv"
    "$base" -m venv "$venv" >&2
fi
# A path file rather than --system-site-packages, which would miss a torch that itself lies in an environment.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -f -- "$site/athanor-host.pth"
[[ -z $borrowed ]] || printf '%s\n' "$borrowed" > "$site/athanor-host.pth"
had=$(cat "$venv/.athanor-torch" 2> /dev/null || true)
rm -f -- "$venv/.athanor-runtime" "$venv/.athanor-dev"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
if [[ -z $borrowed && $index != "$had" ]]; then
    # Only from there: another build of the same version might not run on this driver, and pip sees no difference.
    "${pip[@]}" --no-deps --force-reinstall ${index:+--index-url "$index"} "$(grep '^torch==' "$root/requirements.lock")" >&2 ||
        die "pip could not install torch from ${index:-PyPI}; its message is above. Behind a mirror: TORCH_INDEX=URL of its copy."
    printf '%s\n' "$index" > "$venv/.athanor-torch"
fi
[[ -z $index ]] || pip+=(--extra-index-url "$index")
"${pip[@]}" --requirement "$wanted" >&2 ||
    die "pip could not install $(basename -- "$lock"); its message is above. The next start tries again."
[[ -n $borrowed ]] || printf '%s\n' "$index" > "$venv/.athanor-torch"
printf '%s\n' "$digest" > "$venv/.athanor-$kind"
say "Environment ready in $((SECONDS - started)) s."
printf '%s\n' "$venv/bin/python"
