#!/usr/bin/env bash
# Makes the Python environment that everything runs in, once, and prints its interpreter's path on standard output.
#
#   scripts/setup_env.sh [WORD...] [--dev] [--check] [--cpu]
#
# WORD     a domain, or another extra of pyproject.toml: requirements/WORD.lock exists (default: music; core: no extra)
# --dev    tests and lint too      --check   use what is there, install nothing      --cpu   any torch will do
#
# The environment is .venv beside the project (elsewhere: ATHANOR_VENV=DIR). What is missing or was pinned to another
# version since is installed into it; where nothing is, this takes milliseconds. uv installs (pinned; fetched with pip),
# pip where uv cannot be had or fails; ATHANOR_INSTALLER=uv or pip decides. Index, wheel folders, certificates and
# constraints are those that pip is configured for.
# Where the host's Python already has a torch of a version that Athanor was tested with (a rented pod's image), the
# environment uses that one and what it requires, and nothing else of the host's packages (ATHANOR_HOST_TORCH=no:
# never). Where it has none, the build of torch is chosen that the NVIDIA driver can run (scripts/torch_index.sh;
# TORCH_INDEX=URL, or a folder that holds the wheel, decides instead).
# ATHANOR_PYTHON=FILE uses that interpreter as it is. Exit 6: something is missing on the host, and the message names
# the line that installs it.
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd && printf x) # the x keeps a newline at the end of a name
root=${root%$'\n'x}
venv=${ATHANOR_VENV:-$root/.venv}
locks=$root/requirements
tested_torch=(2.13 2.11) # versions that the test suite passed with
installer=${ATHANOR_INSTALLER:-}

# shellcheck source=scripts/installer.sh
source "$root/scripts/installer.sh"

words=() check=no cpu=no dev=no
for argument in "$@"; do
    case $argument in
        --dev) dev=yes ;;
        --check) check=yes ;;
        --cpu) cpu=yes ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        -*) say "setup_env.sh: unknown argument $argument"; exit 2 ;;
        *)
            if [[ ! $argument =~ ^[a-z0-9_-]+$ || ! -f $locks/$argument.lock ]]; then
                known=("$locks"/*.lock)
                known=("${known[@]##*/}")
                say "setup_env.sh: unknown word $argument; there are: ${known[*]%.lock}"
                exit 2
            fi
            words+=("$argument")
            ;;
    esac
done
((${#words[@]})) || words=(music)
[[ $dev == no ]] || words+=(dev)

if [[ $installer != '' && $installer != uv && $installer != pip ]]; then
    say "setup_env.sh: ATHANOR_INSTALLER is uv or pip, not $installer"
    exit 2
fi

if [[ -n ${ATHANOR_PYTHON:-} ]]; then
    [[ -x $ATHANOR_PYTHON ]] || die "ATHANOR_PYTHON=$ATHANOR_PYTHON is not a program."
    printf '%s\n' "$ATHANOR_PYTHON"
    exit 0
fi

unset -v PYTHONPATH # packages outside of the environment are not part of it: pip would count them as installed

# -- is there anything to do? --------------------------------------------------------------------------------------

# A word's mark in the environment holds the digests of the locks from which it was installed: the core's and its own.
declare -A digest=()
while read -r sum file; do
    file=${file##*/}
    digest[${file%.lock}]=$sum
done < <(sha256sum -- "$locks"/*.lock)

is_installed() {
    local mark=$venv/.athanor-$1
    [[ -f $mark && $(< "$mark") == "${digest[core]} ${digest[$1]}" ]]
}

fresh() { # is the environment complete for all words?
    local word
    [[ -x $venv/bin/python ]] || return 1
    # a TORCH_INDEX given now must be the one that torch came from (a borrowed torch came from none)
    [[ -z ${TORCH_INDEX+given} || ! -f $venv/.athanor-torch || $(< "$venv/.athanor-torch") == "$TORCH_INDEX" ]] || return 1
    for word in "${words[@]}"; do
        is_installed "$word" || return 1
    done
}

if fresh; then
    printf '%s\n' "$venv/bin/python"
    exit 0
fi
if [[ $check == yes ]]; then
    die "there is no finished environment in $venv for this version. Leave out --skip-build once to make it."
fi
find_base

{ exec 9> "$venv.lock"; } 2> /dev/null ||
    die "$venv.lock cannot be written: make its folder writable, or choose another place with ATHANOR_VENV=DIR."
if ! flock --nonblock 9; then
    say "Another process is setting up $venv; waiting for it."
    flock 9
    if fresh; then
        printf '%s\n' "$venv/bin/python"
        exit 0
    fi
fi

# -- which torch ---------------------------------------------------------------------------------------------------

pin=$(grep '^torch==' "$locks/core.lock")
borrowed=no index='' host_torch=''
if [[ ${ATHANOR_HOST_TORCH:-} != no ]]; then
    host_torch=$("$base" "$root/scripts/host_torch.py" version 2> /dev/null || true)
fi
for version in "${tested_torch[@]}"; do
    [[ $host_torch != "$version".* ]] || borrowed=yes
done
if [[ $borrowed == yes ]]; then
    say "Using the torch $host_torch that $base already has."
elif [[ -n $host_torch ]]; then
    say "$base has torch $host_torch; Athanor is tested with ${tested_torch[*]}, so its environment gets its own."
fi
if [[ $borrowed == no && $cpu == no ]]; then
    index=$("$root/scripts/torch_index.sh")
elif [[ $borrowed == no ]]; then
    index=${TORCH_INDEX:-}
fi

# -- installing ----------------------------------------------------------------------------------------------------

work=$(mktemp -d) || die "no temporary folder can be made in ${TMPDIR:-/tmp}; its message is above. Make room, or set TMPDIR."
trap 'rm -rf -- "$work"' EXIT
cp -- "$locks"/*.lock "$work"
if [[ $borrowed == yes ]]; then # the locks include the core's by its name
    grep -v '^torch==' "$locks/core.lock" > "$work/core.lock"
fi
requirements=()
for word in "${words[@]}"; do
    requirements+=(--requirement "$work/$word.lock")
done

python_of() { "$1" -c 'import sys; print(sys.version_info[:2])' 2> /dev/null; }

keep_environment() { # is there one already, of this Python?
    [[ -x $venv/bin/python && $(python_of "$venv/bin/python") == $(python_of "$base") ]]
}

link_host_torch() { # links to it on the environment's path, or none; $work/linked names what is linked
    local site links=$venv/lib/host-torch-packages
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -rf -- "$site/athanor-host.pth" "$links"
    : > "$work/linked"
    [[ $borrowed == yes ]] || return 0
    "$base" "$root/scripts/host_torch.py" link "$links" "$locks"/*.lock > "$work/linked" || return
    # A path file, so that what the environment itself has comes first.
    printf '%s\n' "$links" > "$site/athanor-host.pth"
}

install_into() { # install_into INDEX_OPTION COMMAND...: links, torch and locks into the environment that there is now
    local had from=() more=() index_option=$1
    shift
    had=$(cat "$venv/.athanor-torch" 2> /dev/null || true)
    # what is about to change counts as missing until it is done
    rm -f -- "${words[@]/#/$venv/.athanor-}"
    is_installed core && [[ $borrowed == yes || $index == "$had" ]] || rm -f -- "$venv"/.athanor-*
    failed="the host's torch"
    link_host_torch || return
    if [[ $borrowed == no && $index != "$had" ]]; then
        failed="torch from ${index:-PyPI}"
        if [[ -d $index ]]; then
            from=(--no-index --find-links "$index")
        elif [[ -n $index ]]; then
            from=("$index_option" "$index")
        fi
        # Only from there: another build of the same version might not run on this driver, and no installer sees a difference.
        env ${index:+-u UV_INDEX -u UV_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS} \
            "$@" --no-deps --force-reinstall ${from[@]+"${from[@]}"} "$pin" >&2 || return
        printf '%s\n' "$index" > "$venv/.athanor-torch"
    fi
    failed="${words[*]/%/.lock}"
    [[ -z $index || -d $index ]] || more=(--extra-index-url "$index")
    "$@" ${more[@]+"${more[@]}"} "${requirements[@]}" >&2
}

with_uv() { # false: uv cannot be had, or could not install $failed
    failed='' uv_arguments=()
    find_uv "$venv/bin/uv" "$work/uv"
    [[ -n $uv ]] || return
    configure_uv
    failed="an environment of $base"
    if ! keep_environment; then
        if [[ $uv == "$venv"/* ]]; then
            mv -- "$uv" "$work/uv" && uv=$work/uv || return
        fi
        rm -rf -- "$venv"
        "$uv" venv --quiet --no-project --python "$("$base" -c 'import sys; print(sys.executable)')" "$venv" >&2 || return
    fi
    if [[ $uv == "$work"/* ]]; then
        mv -- "$uv" "$venv/bin/uv" && uv=$venv/bin/uv || return
    fi
    local install=("$uv" pip install "${uv_arguments[@]}" --python "$venv/bin/python")
    install_into --default-index "${install[@]}" --excludes "$work/linked" || return
    # pip too, for what someone may want to add; nothing here needs it, and an index may not have it
    "${install[@]}" pip 2> /dev/null || true
}

with_pip() {
    if ! keep_environment || ! "$venv/bin/python" -c 'import pip' 2> /dev/null; then
        rm -rf -- "$venv"
        "$base" -m venv "$venv" >&2 || return
    fi
    install_into --index-url "$venv/bin/python" -m pip install --quiet --disable-pip-version-check
}

started=$SECONDS
say "Setting up $venv with $("$base" --version) (${words[*]}; once, a few minutes) ..."
by=uv failed=''
if [[ $installer == pip ]] || ! with_uv; then
    if [[ $installer == uv && -z $failed ]]; then
        die "uv $uv_version cannot be had: pip install uv==$uv_version"
    elif ! can_make_environments; then
        [[ -z $failed ]] || die "uv could not install $failed; its message is above. The next start tries again."
        die "$base cannot make environments. On Debian or Ubuntu:
    sudo apt-get install python3-venv"
    elif [[ $installer == uv ]]; then
        die "uv could not install $failed; its message is above. The next start tries again."
    elif [[ -n $failed ]]; then
        say "uv could not install $failed; its message is above. Trying with pip."
    elif [[ $installer != pip ]]; then
        say "uv $uv_version cannot be had here; using pip, which takes longer."
    fi
    by=pip
    with_pip || die "pip could not install $failed; its message is above. The next start tries again.
With a private package index: set it in pip's configuration, and its copy of torch's builds by TORCH_INDEX=URL."
fi
[[ $borrowed == yes ]] || printf '%s\n' "$index" > "$venv/.athanor-torch"
for word in core "${words[@]}"; do
    printf '%s\n' "${digest[core]} ${digest[$word]}" > "$venv/.athanor-$word"
done
say "Environment ready in $((SECONDS - started)) s ($by)."
printf '%s\n' "$venv/bin/python"
