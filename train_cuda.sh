#!/usr/bin/env bash
# One command: data in; trained, verified, exported models out. It makes a plan (training/runner/plan.py), sets up an
# environment or an image, executes the plan's steps, and forwards signals. It contains nothing specific to a domain.
#
#   ./train_cuda.sh [WORD] [options]        ./train_cuda.sh [WORD] --help
# shellcheck disable=SC2034,SC2154  # variables that the plan sets, and that scripts/docker.sh reads
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

root=$(readlink -f -- "${BASH_SOURCE[0]}" && printf x) # the x keeps a newline at the end of a name
root=${root%/*}
# shellcheck source=scripts/environment.sh
source "$root/scripts/environment.sh"

show() { # show FORMAT WORDS...: printf to the console. If that has gone, or its disk is full, the work continues.
    # shellcheck disable=SC2059
    printf "$@" 2> /dev/null || true
}
warn() { show "$@" >&2; }
trap '' PIPE # the same Ctrl-C also ends `| tee`; this script must continue until the stage has saved

# All stages of one command get the same id, so that the time between them is counted (training/budget/ledger.py).
printf -v ATHANOR_RUNNER '%(%s)T-%d' -1 $$
export ATHANOR_RUNNER

# shellcheck source=scripts/docker.sh
source "$root/scripts/docker.sh"

# -- the plan ------------------------------------------------------------------------------------------------------

[[ $root != *:* ]] || refuse "this folder, '$root', has a colon in its name, which ends an entry of PYTHONPATH: rename it."
set_python_path "$root"
[[ -z $ignored_path ]] || show 'note: PYTHONPATH=%q is not used: it would come before the packages that are pinned (docs/setup.md).\n' \
    "$ignored_path"

# Any Python from 3.11 on can plan: it needs the standard library alone.
planner=''
for candidate in python3 python python3.13 python3.12 python3.11 "${ATHANOR_PYTHON:-}" "$root/.venv/bin/python"; do
    if command -v "$candidate" > /dev/null &&
        "$candidate" -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
        planner=$candidate
        break
    fi
done

planned() { # planned ARGUMENTS...: `python -m training.runner ARGUMENTS` by the host's Python
    PYTHONDONTWRITEBYTECODE=1 "$planner" -S -m training.runner "$@"
}

if [[ -n $planner ]]; then
    plan=$(planned -- "$@")
else
    plan=$(planned_in_image "$@")
fi
eval "$plan"
for note in ${notes[@]+"${notes[@]}"}; do
    show 'note: %s\n' "$note"
done

child='' begun='' signals=0 container_name=''
forward() { # The running stage saves and exits; a second signal ends it at once (training/runner/supervisor.py).
    signals=$((signals + 1))
    if [[ -n $child ]]; then
        pass_on
    elif [[ -z $begun ]]; then # no stage yet
        warn 'interrupted: run the same command again to continue.\n'
        exit 75
    fi
}
pass_on() { # a request to stop, to the running stage
    if [[ -n $container_name ]]; then
        dismiss_guard
        # With a terminal, `docker run` forwards no signal; and until the container runs, `docker kill` fails.
        while ! docker kill --signal TERM "$container_name" > /dev/null 2>&1; do
            kill -0 "$child" 2> /dev/null || return 0
            sleep 0.2
        done
    else
        kill -s TERM -- "$child" 2> /dev/null || true
    fi
}
trap forward INT TERM HUP

# -- the end of a rented host ------------------------------------------------------------------------------------------

if [[ ${ATHANOR_STOP_HOST:-} == 1 && $dry_run == no && $estimate == no ]]; then
    at_the_end() { # unless someone has stopped the job: that person may want to look at the host
        local code=$?
        ((signals == 0)) || exit "$code"
        warn 'ATHANOR_STOP_HOST: the job has ended with %d.\n' "$code"
        "$root/scripts/stop_host.sh" || warn 'warning: this host was NOT stopped, and costs further.\n'
        exit "$code"
    }
    trap at_the_end EXIT
fi

# -- docker or native ----------------------------------------------------------------------------------------------

case $mode in
    docker)
        reason=$(why_no_engine)
        [[ -z $reason ]] || refuse "--docker: $reason."
        ;;
    native) ;;
    *)
        mode=native
        if inside_container; then
            show 'Running natively: this is a container already.\n'
        elif [[ -n ${ATHANOR_PYTHON:-}${ATHANOR_VENV:-} ]]; then
            show 'Running natively: ATHANOR_PYTHON or ATHANOR_VENV names the environment.\n'
        else
            reason=$(why_no_engine)
            if [[ -z $reason ]]; then
                mode=docker
                show 'Running in containers (--native: without Docker).\n'
            else
                show 'Running natively: %s.\n' "$reason"
            fi
        fi
        ;;
esac

# -- the environment -----------------------------------------------------------------------------------------------

container=() gpu=no
if [[ $mode == docker ]]; then
    python=python
    [[ $cpu == yes || $dry_run == yes ]] || look_for_gpu
    choose_image
    if [[ $dry_run == yes ]]; then
        gpu=$([[ $cpu == yes ]] && echo no || echo yes)
    else
        build_image
        if [[ $cpu == no ]]; then
            probe_gpu
            [[ $gpu == yes ]] || show 'note: this host has no NVIDIA GPU: training on the CPU.\n'
        fi
    fi
    prepare_container
else
    if [[ $persist == /* && ! -d $persist && $dry_run == no ]]; then # the other kind is a URL
        mkdir -- "$persist" || refuse "--persist '$persist' cannot be made."
    fi
    setup_options=(core) # or the domain's extra, where it has one
    [[ ! -f $root/requirements/$domain.lock ]] || setup_options=("$domain")
    [[ $uses_store == no ]] || setup_options+=(clouds)
    [[ $wandb == no ]] || setup_options+=(wandb)
    [[ $skip_build == no ]] || setup_options+=(--check)
    [[ $cpu == no ]] || setup_options+=(--cpu)
    if [[ $dry_run == yes ]]; then
        python=${ATHANOR_PYTHON:-${ATHANOR_VENV:-$root/.venv}/bin/python}
    else
        python=$("$root/scripts/setup_env.sh" ${setup_options[@]+"${setup_options[@]}"})
    fi
fi
# A user without a home of their own (a container's arbitrary uid) still needs a place for numba's compiled code.
[[ -w ${HOME:-/} ]] || export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$out/cache/numba}"

# -- stages --------------------------------------------------------------------------------------------------------

stage() { # stage TITLE OPTIONS-OF-THE-SUPERVISOR... -- COMMAND... : run it; what fails or is stopped ends everything
    ((signals == 0)) || leave 75
    run_stage "$@" || leave "$?"
}

run_stage() { # the same, but returns the exit code instead of ending this script
    local title=$1 code=0 started=$SECONDS before=$signals
    shift
    set -- ${container[@]+"${container[@]}"} "$python" -m training.runner.supervisor --title "$title" "$@"
    if [[ $dry_run == yes ]]; then
        show '%q ' "$@"
        show '\n'
        return
    fi
    show '\n== %s\n' "$title"
    [[ $mode == native ]] || guard_container
    set -m # its own process group, so that Ctrl-C reaches this script only
    ATHANOR_PARENT=$$ "$@" < /dev/null & # it stops when this script is killed (training/parent.py)
    child=$!
    set +m
    ((signals == before)) || pass_on # a signal that arrived before `child` was set
    while :; do
        code=0
        wait "$child" || code=$?
        # `wait` also returns when a trapped signal arrives; the stage itself may still be saving
        kill -0 "$child" 2> /dev/null || break
    done
    wait "$child" 2> /dev/null && code=0 || code=$?
    child=''
    if ((signals > before && code == 0 || signals == before + 1 && code == 143)); then
        code=75 # it was done before the signal arrived, or it had no handler yet; no further stage is started
    fi
    [[ $mode == native ]] || container_ended
    if ((code == 0)); then
        show '== %s: done in %d s\n' "$title" $((SECONDS - started))
    elif ((code == 75)); then
        warn '\n== %s: interrupted after %d s; everything is saved. Run the same command again to continue.\n' \
            "$title" $((SECONDS - started))
    else
        warn '\n== %s: failed after %d s (exit %d)\n' "$title" $((SECONDS - started)) "$code"
        ((code != 1 && code < 128)) || warn '%s\n' "Finished stages are kept: the same command continues with this stage.
Exit 137 (killed) most often means that the host ran out of memory (\`sudo dmesg\` shows it); for other codes see the messages above."
    fi
    return "$code"
}

restored=no # yes: `restore` has succeeded, so that results may be copied to --persist
leave() { # leave CODE: end early, after a copy of the results to --persist
    if [[ $restored == yes && $dry_run == no ]]; then
        restored=no
        copy_away || warn 'warning: what is in %s may be older than what is in %s.\n' "$persist" "$out"
    fi
    exit "$1"
}

device=() # if containers can use the GPU, the stages require it, and never fall back to the CPU
[[ $gpu == no ]] || device=(--device cuda)

begun=$SECONDS
steps
if [[ $estimate == yes ]]; then
    [[ $dry_run == yes ]] || show '\nNothing was trained. Without --estimate, the same command trains.\n'
    exit 0
fi
[[ $restored == no ]] || copy_away || exit "$?"
if [[ $dry_run == no ]]; then
    show '\nAll done in %d min %02d s. ' $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60))
    if [[ $exports == yes ]]; then
        show 'The models are in %s, and %s shows how good they are.\n' "$out/exports" "$out/exports/report.html"
    else
        show 'The checkpoints are in %s\n' "$out/checkpoints"
    fi
    [[ -z $own_data ]] || show 'This was a demo, on data made by rules. Your own data: %s\n' "$own_data"
fi
