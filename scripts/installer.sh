# shellcheck shell=bash disable=SC2034,SC2154
# Finds a Python and an installer of packages; sourced by setup_env.sh, setup_references.sh and lock.sh, which set $root.
# Every function that can refuse prints the cause and the remedy, and exits with 6.

# uv, from the package index that pip is configured for: `pip install uv==` this. Another version on PATH serves if it is
# newer.
uv_version=0.13.9

say() { printf '%s\n' "$*" >&2 || true; } # a closed console must not end the script
die() { say "error: $*"; exit 6; }
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; } # at_least VERSION OLDEST

find_base() { # sets base: the host's Python that environments are made from
    local candidate
    for candidate in "${ATHANOR_BASE_PYTHON:-}" python3 python python3.13 python3.12 python3.11; do
        if command -v "$candidate" > /dev/null &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null; then
            base=$(command -v "$candidate")
            return
        fi
    done
    die "Python 3.11, 3.12 or 3.13 is needed and none was found. On Debian or Ubuntu:
    sudo apt-get install python3 python3-venv"
}

can_make_environments() { "$base" -c 'import venv, ensurepip' 2> /dev/null; } # is pip possible without uv?

serves() { # serves FILE: is it a uv that is new enough?
    local version
    version=$("$1" --version 2> /dev/null) || return 1
    version=${version#uv }
    at_least "${version%% *}" "$uv_version"
}

fetch_uv() { # fetch_uv FOLDER: by any pip of this host, from where pip is configured to take packages
    local python pip=(-m pip install -qq --disable-pip-version-check --no-deps --only-binary :all: --target "$1" "uv==$uv_version")
    for python in "$base" python3 python /usr/bin/python3; do
        if "$python" -m pip --version > /dev/null 2>&1; then
            # --target excludes --user, which may be configured; the host's packages are not touched
            PIP_USER=0 PIP_ROOT_USER_ACTION=ignore "$python" "${pip[@]}" >&2 && return
            return 1
        fi
    done
    can_make_environments || return 1
    "$base" -m venv "$1/pip" >&2 && "$1/pip/bin/python" "${pip[@]}" >&2
}

find_uv() { # find_uv KEPT FETCHED: sets uv: KEPT, one on PATH, or one fetched as FETCHED; empty where none can be had
    local candidate folder
    for candidate in "$1" uv; do
        if command -v "$candidate" > /dev/null && serves "$candidate"; then
            uv=$(command -v "$candidate")
            return
        fi
    done
    uv=
    folder=$(mktemp -d)
    if fetch_uv "$folder" && serves "$folder/bin/uv"; then
        mv -- "$folder/bin/uv" "$2" && uv=$2
    fi
    rm -rf -- "$folder"
}

configure_uv() { # exports what is configured for pip as uv's variables; sets uv_arguments, further arguments of `uv pip`
    local entry
    uv_arguments=(--quiet --project "$root")
    export UV_PYTHON_DOWNLOADS=never
    while IFS= read -r -d '' entry; do
        if [[ $entry == --* ]]; then
            uv_arguments+=("$entry")
        else
            export "${entry?}"
        fi
    done < <("$base" "$root/scripts/pip_settings.py")
}
