#!/usr/bin/env bash
# Folders of audio and MIDI in; trained, verified, exported models out. `./train_cuda.sh --help` tells the rest.
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)

usage() {
    cat << 'TEXT'
Usage: ./train_cuda.sh [options]

Prepares the data, trains both models, exports them to ONNX and CoreML, and verifies every exported file.
Without data options it trains on a small demo corpus that it composes itself (all results say so).
Running the same command again continues where it stopped.

Data
  --audio-root DIR       audio files: wav mp3 flac ogg m4a aac
  --midi-root DIR        MIDI files: mid midi; paired with audio by path, or by a unique file name
  --data-mount DIR       a dataset folder: DIR/audio and DIR/midi serve as roots that are not given

Run
  --out DIR              where everything is written (default: this folder)
  --preset full|small|demo|debug   full: a 24 GB GPU (default); small: half an hour on two cores; demo: minutes (default
                         on the demo corpus); debug: seconds, learns nothing
  --epochs N             train each model for N epochs
  --seed N               of the split, the order, the start (default: the configuration's, 42)
  --resume auto|never    auto: continue an interrupted run (default); never: start anew, the old one is kept aside
  --cpu                  do not use a GPU
  --gpus N               use N GPUs of this host (fails if there are fewer)
  --docker | --native    in containers, or in an environment of this host (default: Docker where an engine answers;
                         inside a container, or with ATHANOR_PYTHON or ATHANOR_VENV, natively)

Several hosts (docs/rented-hosts.md); the same command on each, but for --node-rank
  --nnodes N             how many hosts train together
  --node-rank K          which one this is; 0 also evaluates and exports
  --master-addr HOST     where the host of rank 0 is reached      --master-port PORT   (default: 29500)

Leave out a stage
  --skip-build           use the image or the environment as it is, install nothing
  --skip-manifests       use the manifests that are there
  --skip-spectocloud     --skip-midi     --skip-export

What it may cost; counted over all stages and restarts of a job (runs/budget.json), so that it ends in verified exports
  --max-hours H          end within H hours: the learning rate is planned to be down by then
  --budget-usd X         end before X dollars are spent; with both, the stricter counts
  --price-per-hour Y     what an hour costs, all GPUs and hosts together (default: by the GPU's name)
  --estimate             prepare, time a few real steps of each model, tell hours and cost, and end without training

Hosts that vanish
  --persist DIR          keep verified copies of all that matters in DIR, which may be slow or a network drive; a new
                         host goes on from there

  --dry-run              print the exact commands, run nothing
  --help                 this text

A training that crashed, hung or was killed is started again and goes on from its newest checkpoint: after 5, 15, 45 and
120 s, at most 4 times without progress (ATHANOR_RESTARTS, ATHANOR_RESTART_PAUSES), and never for what would repeat.
The first Ctrl-C or SIGTERM saves and stops; a second one ends everything at once.

Exit codes: 0 all done and verified, 2 wrong usage or configuration, 3 data refused, 4 an export is missing or
differs, 5 training failed, 6 the environment (no GPU, no disk, folder in use), 75 interrupted with everything saved:
run the same command again.

The environment can stand in for options, for pods and Compose: ATHANOR_AUDIO_ROOT, ATHANOR_MIDI_ROOT,
ATHANOR_DATA_MOUNT, ATHANOR_OUT, ATHANOR_PERSIST, ATHANOR_MAX_HOURS, ATHANOR_BUDGET_USD, ATHANOR_PRICE_PER_HOUR.
docs/docker.md tells what else Docker mode listens to.
TEXT
}

usage_error() {
    printf 'error: %s\nTry ./train_cuda.sh --help\n' "$1" >&2
    exit 2
}

# -- options -------------------------------------------------------------------------------------------------------

# By this the stages of one command know each other, and the time between them is counted (training/budget/ledger.py).
printf -v ATHANOR_RUNNER '%(%s)T-%d' -1 $$
export ATHANOR_RUNNER

audio_root=${ATHANOR_AUDIO_ROOT:-} midi_root=${ATHANOR_MIDI_ROOT:-} data_mount=${ATHANOR_DATA_MOUNT:-}
out=${ATHANOR_OUT:-$root} persist=${ATHANOR_PERSIST:-}
max_hours=${ATHANOR_MAX_HOURS:-} budget_usd=${ATHANOR_BUDGET_USD:-} price_per_hour=${ATHANOR_PRICE_PER_HOUR:-}
epochs='' preset='' seed='' resume='' gpus='' mode=''
nnodes='' node_rank='' master_addr='' master_port=29500
cpu=no dry_run=no estimate=no skip_build=no skip_manifests=no skip_spectocloud=no skip_midi=no skip_export=no

whole_number() { # whole_number OPTION VALUE SMALLEST
    if [[ $2 =~ ^[0-9]{1,9}$ ]] && ((10#$2 >= $3)); then return; fi
    usage_error "$1 takes a whole number from $3 up, not '$2'."
}

amount() { # amount OPTION VALUE: a positive decimal number, or nothing
    [[ -n $2 ]] || return 0
    if [[ $2 =~ ^([0-9]{1,6}(\.[0-9]{0,9})?|\.[0-9]{1,9})$ && $2 =~ [1-9] ]]; then return; fi
    usage_error "$1 takes a number above 0 (and below 1000000), not '$2'."
}

while (($#)); do
    option=$1
    shift
    value='' has_value=no
    if [[ $option == --*=* ]]; then
        value=${option#*=} option=${option%%=*} has_value=yes
    fi
    case $option in
        --audio-root | --midi-root | --data-mount | --out | --epochs | --preset | --seed | --resume | --gpus | \
            --nnodes | --node-rank | --master-addr | --master-port | \
            --max-hours | --budget-usd | --price-per-hour | --persist)
            if [[ $has_value == no ]]; then
                (($#)) || usage_error "$option needs a value."
                value=$1
                shift
            fi
            [[ -n $value ]] || usage_error "$option needs a value."
            ;;
        *) [[ $has_value == no ]] || usage_error "$option takes no value." ;;
    esac
    case $option in
        --audio-root) audio_root=$value ;;
        --midi-root) midi_root=$value ;;
        --data-mount) data_mount=$value ;;
        --out) out=$value ;;
        --epochs)
            whole_number --epochs "$value" 1
            epochs=$((10#$value))
            ;;
        --seed)
            whole_number --seed "$value" 0
            seed=$((10#$value))
            ;;
        --gpus)
            whole_number --gpus "$value" 1
            gpus=$((10#$value))
            ;;
        --nnodes)
            whole_number --nnodes "$value" 1
            nnodes=$((10#$value))
            ;;
        --node-rank)
            whole_number --node-rank "$value" 0
            node_rank=$((10#$value))
            ;;
        --master-addr) master_addr=$value ;;
        --master-port)
            whole_number --master-port "$value" 1
            master_port=$((10#$value))
            ;;
        --preset)
            [[ $value == full || $value == small || $value == demo || $value == debug ]] ||
                usage_error "--preset is full, small, demo or debug, not '$value'."
            preset=$value
            ;;
        --resume)
            [[ $value == auto || $value == never ]] || usage_error "--resume is auto or never, not '$value'."
            resume=$value
            ;;
        --native | --docker)
            [[ -z $mode || $mode == "${option#--}" ]] || usage_error "--native and --docker exclude each other."
            mode=${option#--}
            ;;
        --max-hours) max_hours=$value ;;
        --budget-usd) budget_usd=$value ;;
        --price-per-hour) price_per_hour=$value ;;
        --persist) persist=$value ;;
        --estimate) estimate=yes ;;
        --cpu) cpu=yes ;;
        --dry-run) dry_run=yes ;;
        --skip-build) skip_build=yes ;;
        --skip-manifests) skip_manifests=yes ;;
        --skip-spectocloud) skip_spectocloud=yes ;;
        --skip-midi) skip_midi=yes ;;
        --skip-export) skip_export=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) usage_error "unknown option '$option'." ;;
    esac
done

# absolute, so that a name with a leading dash is never taken for an option
for name in audio_root midi_root data_mount out persist; do
    [[ -z ${!name} || ${!name} == /* ]] || printf -v "$name" '%s/%s' "$PWD" "${!name}"
done

amount --max-hours "$max_hours"
amount --budget-usd "$budget_usd"
amount --price-per-hour "$price_per_hour"
[[ $cpu == no || -z $gpus ]] || usage_error "--cpu and --gpus exclude each other."
if [[ -n $nnodes ]]; then
    [[ -n $node_rank && -n $master_addr ]] || usage_error "--nnodes needs --node-rank and --master-addr."
    ((node_rank < nnodes)) || usage_error "--node-rank counts from 0: with --nnodes $nnodes it is at most $((nnodes - 1))."
elif [[ -n $node_rank$master_addr ]]; then
    usage_error "--node-rank and --master-addr go with --nnodes."
fi

if [[ -n $data_mount ]]; then
    [[ -d $data_mount ]] || usage_error "--data-mount '$data_mount' is not a folder."
    [[ -n $audio_root || ! -d $data_mount/audio ]] || audio_root=$data_mount/audio
    [[ -n $midi_root || ! -d $data_mount/midi ]] || midi_root=$data_mount/midi
    [[ -n $audio_root || -n $midi_root ]] ||
        usage_error "'$data_mount' has neither an audio nor a midi folder; name them with --audio-root and --midi-root."
fi
[[ -z $audio_root || -d $audio_root ]] || usage_error "--audio-root '$audio_root' is not a folder."
[[ -z $midi_root || -d $midi_root ]] || usage_error "--midi-root '$midi_root' is not a folder."
if [[ -n $persist && ! -d $persist ]]; then
    [[ ! -e $persist && -d ${persist%/*}/ ]] ||
        usage_error "--persist '$persist' is not a folder, nor is it in one: is the drive mounted?"
fi
if [[ $skip_manifests == yes && -n $audio_root$midi_root ]]; then
    echo "note: --skip-manifests: the manifests that are there are used; files that moved are looked up under the given roots."
fi
if [[ -n $audio_root && -z $midi_root && $skip_manifests == no ]]; then
    usage_error "--audio-root needs --midi-root: Spectocloud learns from audio and MIDI of the same songs."
fi
if [[ -z $audio_root && -n $midi_root && $skip_spectocloud == no ]]; then
    echo "note: no --audio-root: Spectocloud needs audio and is left out."
    skip_spectocloud=yes
fi

if [[ $estimate == yes && ($nnodes -gt 1 || $gpus -gt 1) ]]; then
    echo "note: --estimate times one GPU; several share the steps of an epoch among them."
fi

child='' begun='' signals=0 container_name=''
forward() { # The running stage saves and ends by itself; a second signal ends it at once (training/runner/supervisor.py).
    signals=$((signals + 1))
    if [[ -n $child ]]; then
        pass_on
    elif [[ -z $begun ]]; then # no stage yet
        echo "interrupted: run the same command again to continue." >&2
        exit 75
    fi
}
pass_on() { # a request to stop, to the running stage
    if [[ -n $container_name ]]; then
        # With a terminal `docker run` passes nothing on, and before its container runs there is nothing to pass it to.
        while ! docker kill --signal TERM "$container_name" > /dev/null 2>&1; do
            kill -0 "$child" 2> /dev/null || return 0
            sleep 0.2
        done
    else
        kill -s TERM -- "$child" 2> /dev/null || true
    fi
}
trap forward INT TERM HUP
trap '' PIPE # `| tee` dies of the same Ctrl-C: that is no reason to die before the stage has saved

# -- docker or native ----------------------------------------------------------------------------------------------

# shellcheck source=scripts/docker.sh
source "$root/scripts/docker.sh"

case $mode in
    docker)
        reason=$(why_no_engine)
        [[ -z $reason ]] || refuse "--docker: $reason."
        ;;
    native) ;;
    *)
        mode=native
        if inside_container; then
            echo "Running natively: this is a container already."
        elif [[ -n ${ATHANOR_PYTHON:-}${ATHANOR_VENV:-} ]]; then
            echo "Running natively: ATHANOR_PYTHON or ATHANOR_VENV names the environment."
        else
            reason=$(why_no_engine)
            if [[ -z $reason ]]; then
                mode=docker
                echo "Running in containers (--native: without Docker)."
            else
                echo "Running natively: $reason."
            fi
        fi
        ;;
esac

# -- the environment -----------------------------------------------------------------------------------------------

container=() gpu=no
if [[ $mode == docker ]]; then
    python=python
    for name in audio_root midi_root data_mount out persist; do
        plain_path "$name"
    done
    [[ $cpu == yes || $dry_run == yes ]] || look_for_gpu
    choose_image
    if [[ $dry_run == yes ]]; then
        gpu=$([[ $cpu == yes ]] && echo no || echo yes)
    else
        build_image
        if [[ $cpu == no ]]; then
            probe_gpu
            [[ $gpu == yes ]] || echo "note: this host has no NVIDIA GPU: training on the CPU."
        fi
    fi
    prepare_container
else
    if [[ -n $audio_root ]] && ! command -v ffmpeg > /dev/null &&
        [[ -n $(find -L "$audio_root" -type f \( -iname '*.m4a' -o -iname '*.aac' \) -print -quit 2> /dev/null || true) ]]; then
        refuse "$audio_root holds m4a or aac files, and decoding them needs ffmpeg. On Debian or Ubuntu:
    sudo apt-get install ffmpeg"
    fi
    if [[ -n $persist && ! -d $persist && $dry_run == no ]]; then
        mkdir -- "$persist" || refuse "--persist '$persist' cannot be made."
    fi
    setup_options=()
    [[ $skip_build == no ]] || setup_options+=(--check)
    [[ $cpu == no ]] || setup_options+=(--cpu)
    if [[ $dry_run == yes ]]; then
        python=${ATHANOR_PYTHON:-${ATHANOR_VENV:-$root/.venv}/bin/python}
    else
        python=$("$root/scripts/setup_env.sh" ${setup_options[@]+"${setup_options[@]}"})
    fi
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# A user without a home of their own (a container's arbitrary uid) still needs a place for numba's compiled code.
[[ -w ${HOME:-/} ]] || export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$out/cache/numba}"

# -- stages --------------------------------------------------------------------------------------------------------

# Everything but a training is done once, and killed if it does not stop in time: its files are whole at any moment.
once=(--restarts 0 --stop-within 8)

stage() { # stage TITLE OPTIONS-OF-THE-SUPERVISOR... -- COMMAND... : run it; what fails or is stopped ends everything
    ((signals == 0)) || leave 75
    run_stage "$@" || leave "$?"
}

run_stage() { # the same, and its exit code comes back
    local title=$1 code=0 started=$SECONDS before=$signals
    shift
    set -- ${container[@]+"${container[@]}"} "$python" -m training.runner.supervisor --title "$title" "$@"
    if [[ $dry_run == yes ]]; then
        printf '%q ' "$@"
        echo
        return
    fi
    printf '\n== %s\n' "$title"
    set -m # a process group of its own: Ctrl-C reaches this script alone
    "$@" < /dev/null &
    child=$!
    set +m
    ((signals == before)) || pass_on # it came a moment ago
    while :; do
        code=0
        wait "$child" || code=$?
        # `wait` also returns when a trapped signal came; the stage itself may still be saving
        kill -0 "$child" 2> /dev/null || break
    done
    wait "$child" 2> /dev/null && code=0 || code=$?
    child=''
    if ((signals > before && code == 0 || signals == before + 1 && code == 143)); then
        code=75 # done before it heard of the request, or struck before it could listen; no further stage begins
    fi
    if [[ $mode == docker ]] && ((code == 125)); then
        echo "Docker could not start the container; its message is above." >&2
        code=6
    fi
    if ((code == 0)); then
        printf '== %s: done in %d s\n' "$title" $((SECONDS - started))
    elif ((code == 75)); then
        printf '\n== %s: interrupted after %d s; everything is saved. Run the same command again to continue.\n' \
            "$title" $((SECONDS - started)) >&2
    else
        printf '\n== %s: failed after %d s (exit %d)\n' "$title" $((SECONDS - started)) "$code" >&2
        ((code != 1 && code < 128)) || echo "What was finished is kept: the same command goes on with this stage.
Killed (137) is most often a lack of memory on this host (\`sudo dmesg\` tells); for other codes see what is said above." >&2
    fi
    return "$code"
}

restored=no # yes: from here on, what is trained belongs into --persist
copy_away() {
    restored=no
    run_stage "Copy to $persist" "${once[@]}" -- "$python" -m training persist --out "$out" --persist "$persist"
}

leave() { # leave CODE: end early; what there is goes to --persist first
    if [[ $restored == yes && $dry_run == no ]]; then
        copy_away || echo "warning: what is in $persist may be older than what is in $out." >&2
    fi
    exit "$1"
}

common=(--out "$out")
[[ -z $audio_root ]] || common+=(--audio-root "$audio_root")
[[ -z $midi_root ]] || common+=(--midi-root "$midi_root")

money=()
[[ -z $max_hours ]] || money+=(--max-hours "$max_hours")
[[ -z $budget_usd ]] || money+=(--budget-usd "$budget_usd")
[[ -z $price_per_hour ]] || money+=(--price-per-hour "$price_per_hour")

prepare=("$python" -m training prepare "${common[@]}" ${money[@]+"${money[@]}"})
[[ -z $seed ]] || prepare+=(--seed "$seed")

launch=("$python" -m training)
if [[ -n $nnodes ]]; then
    each=${gpus:-gpu} # `gpu`: as many as there are
    [[ $cpu == no ]] || each=1
    launch=(
        "$python" -m training.runner.launch "--nnodes=$nnodes" "--node_rank=$node_rank" "--nproc_per_node=$each"
        "--master_addr=$master_addr" "--master_port=$master_port" -m training
    )
elif [[ -n $gpus ]] && ((gpus > 1)); then
    launch=("$python" -m training.runner.launch --standalone "--nproc_per_node=$gpus" -m training)
fi
device=()
[[ $cpu == no ]] || device=(--device cpu)
# a GPU that was asked for, or that the engine can give, is used: never the CPU in its place
[[ -z $gpus && $gpu == no ]] || device=(--device cuda)
common+=(${money[@]+"${money[@]}"})
train=("${common[@]}" ${device[@]+"${device[@]}"})
[[ -z $preset ]] || train+=(--preset "$preset")
[[ -z $epochs ]] || train+=(--epochs "$epochs")
[[ -z $seed ]] || train+=(--seed "$seed")
[[ -z $resume ]] || train+=(--resume "$resume")

families=()
[[ $skip_spectocloud == yes ]] || families+=(spectocloud)
[[ $skip_midi == yes ]] || families+=(midi_generator)

[[ -z $nnodes ]] || ((node_rank == 0)) || persist='' # rank 0 has the checkpoints
begun=$SECONDS
stage "Look at this host" "${once[@]}" -- \
    "$python" -m training doctor "${common[@]}" ${device[@]+"${device[@]}"} ${gpus:+--gpus "$gpus"}
if [[ -n $persist ]]; then
    stage "Restore from $persist" "${once[@]}" -- "$python" -m training restore --out "$out" --persist "$persist"
    [[ $estimate == yes ]] || restored=yes
fi
[[ $skip_manifests == yes ]] || stage "Prepare the data" "${once[@]}" -- "${prepare[@]}"
families_left=${#families[@]}
for family in ${families[@]+"${families[@]}"}; do
    options=("$family" "${train[@]}" --families-left "$families_left")
    if [[ $estimate == yes ]]; then
        stage "Estimate $family" "${once[@]}" -- "$python" -m training estimate "${options[@]}"
    else
        [[ -z $persist ]] || options+=(--persist "$persist")
        stage "Train $family" --index "$out/checkpoints/$family/index.json" -- "${launch[@]}" train "${options[@]}"
    fi
    families_left=$((families_left - 1))
done
if [[ $estimate == yes ]]; then
    [[ $dry_run == yes ]] || printf '\nNothing was trained. Without --estimate, the same command trains.\n'
    exit 0
fi
if [[ -n $nnodes ]] && ((node_rank > 0)); then
    skip_export=yes
fi
if [[ $skip_export == no ]]; then
    ((${#families[@]})) || families=(spectocloud midi_generator)
    for family in "${families[@]}"; do
        stage "Evaluate $family" "${once[@]}" -- \
            "$python" -m training evaluate "$family" "${common[@]}" ${device[@]+"${device[@]}"}
    done
    stage "Export" "${once[@]}" -- "$python" -m training export "${families[@]}" "${common[@]}"
    stage "Verify the exports" "${once[@]}" -- "$python" -m training verify "$out/exports" ${money[@]+"${money[@]}"}
    stage "Close the books" "${once[@]}" -- "$python" -m training budget --done --out "$out"
fi
[[ $restored == no ]] || copy_away || exit "$?"
if [[ $dry_run == no ]]; then
    printf '\nAll done in %d min %02d s. ' $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60))
    if [[ $skip_export == no ]]; then
        printf 'The models are in %s\n' "$out/exports"
    else
        printf 'The checkpoints are in %s\n' "$out/checkpoints"
    fi
fi
