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
  --preset full|demo|debug   full: a 24 GB GPU (default); demo: minutes on a CPU (default on the demo corpus); debug:
                         seconds, learns nothing
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

  --dry-run              print the exact commands, run nothing
  --help                 this text

Exit codes: 0 all done and verified, 2 wrong usage or configuration, 3 data refused, 4 an export is missing or
differs, 5 training failed, 6 the environment (no GPU, no disk, folder in use), 75 interrupted with everything saved:
run the same command again.

The environment can stand in for options, for pods and Compose: ATHANOR_AUDIO_ROOT, ATHANOR_MIDI_ROOT,
ATHANOR_DATA_MOUNT, ATHANOR_OUT. docs/docker.md tells what else Docker mode listens to.
TEXT
}

usage_error() {
    printf 'error: %s\nTry ./train_cuda.sh --help\n' "$1" >&2
    exit 2
}

# -- options -------------------------------------------------------------------------------------------------------

audio_root=${ATHANOR_AUDIO_ROOT:-} midi_root=${ATHANOR_MIDI_ROOT:-} data_mount=${ATHANOR_DATA_MOUNT:-}
out=${ATHANOR_OUT:-$root}
epochs='' preset='' seed='' resume='' gpus='' mode=''
nnodes='' node_rank='' master_addr='' master_port=29500
cpu=no dry_run=no skip_build=no skip_manifests=no skip_spectocloud=no skip_midi=no skip_export=no

whole_number() { # whole_number OPTION VALUE SMALLEST
    if [[ $2 =~ ^[0-9]{1,9}$ ]] && ((10#$2 >= $3)); then return; fi
    usage_error "$1 takes a whole number from $3 up, not '$2'."
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
            --nnodes | --node-rank | --master-addr | --master-port)
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
            [[ $value == full || $value == demo || $value == debug ]] ||
                usage_error "--preset is full, demo or debug, not '$value'."
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
for name in audio_root midi_root data_mount out; do
    [[ -z ${!name} || ${!name} == /* ]] || printf -v "$name" '%s/%s' "$PWD" "${!name}"
done

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

child='' running=no signals=0
forward() { # The running stage saves and ends by itself; a second signal ends it at once.
    signals=$((signals + 1))
    if [[ -n $child ]]; then
        kill -s TERM -- "$child" 2> /dev/null || true
    elif [[ $running == no ]]; then
        echo "interrupted: run the same command again to continue." >&2
        exit 75
    fi
}
trap forward INT TERM HUP

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
    for name in audio_root midi_root data_mount out; do
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

stage() { # stage TITLE COMMAND... : run it in its own process group, pass signals on, stop everything if it fails
    local title=$1 code=0 started=$SECONDS
    shift
    set -- ${container[@]+"${container[@]}"} "$@"
    if [[ $dry_run == yes ]]; then
        printf '%q ' "$@"
        echo
        return
    fi
    printf '\n== %s\n' "$title"
    running=yes
    set -m
    "$@" < /dev/null &
    child=$!
    set +m
    ((signals == 0)) || kill -s TERM -- "$child" 2> /dev/null || true # it came a moment ago
    while :; do
        code=0
        wait "$child" || code=$?
        # `wait` also returns when a trapped signal came; the stage itself may still be saving
        kill -0 "$child" 2> /dev/null || break
    done
    wait "$child" 2> /dev/null && code=0 || code=$?
    child='' running=no
    if [[ $mode == docker ]] && ((code == 125)); then
        echo "Docker could not start the container; its message is above." >&2
        code=6
    fi
    if ((code != 0)); then
        if ((code == 75)); then
            printf '\n== %s: interrupted after %d s; everything is saved. Run the same command again to continue.\n' \
                "$title" $((SECONDS - started)) >&2
        else
            ((code != 137)) || echo "It was killed (137): most often the memory of this host ran out (sudo dmesg tells)." >&2
            printf '\n== %s: failed after %d s (exit %d)\n' "$title" $((SECONDS - started)) "$code" >&2
        fi
        exit "$code"
    fi
    printf '== %s: done in %d s\n' "$title" $((SECONDS - started))
}

common=(--out "$out")
[[ -z $audio_root ]] || common+=(--audio-root "$audio_root")
[[ -z $midi_root ]] || common+=(--midi-root "$midi_root")

prepare=("$python" -m training prepare "${common[@]}")
[[ -z $seed ]] || prepare+=(--seed "$seed")

launch=("$python" -m training)
if [[ -n $nnodes ]]; then
    each=${gpus:-gpu} # `gpu`: as many as there are
    [[ $cpu == no ]] || each=1
    launch=(
        "$python" -m training.launch "--nnodes=$nnodes" "--node_rank=$node_rank" "--nproc_per_node=$each"
        "--master_addr=$master_addr" "--master_port=$master_port" -m training
    )
elif [[ -n $gpus ]] && ((gpus > 1)); then
    launch=("$python" -m training.launch --standalone "--nproc_per_node=$gpus" -m training)
fi
device=()
[[ $cpu == no ]] || device=(--device cpu)
# a GPU that was asked for, or that the engine can give, is used: never the CPU in its place
[[ -z $gpus && $gpu == no ]] || device=(--device cuda)
train=("${common[@]}" "${device[@]}")
[[ -z $preset ]] || train+=(--preset "$preset")
[[ -z $epochs ]] || train+=(--epochs "$epochs")
[[ -z $seed ]] || train+=(--seed "$seed")
[[ -z $resume ]] || train+=(--resume "$resume")

families=()
[[ $skip_spectocloud == yes ]] || families+=(spectocloud)
[[ $skip_midi == yes ]] || families+=(midi_generator)

begun=$SECONDS
stage "Look at this host" "$python" -m training doctor "${common[@]}" "${device[@]}" ${gpus:+--gpus "$gpus"}
[[ $skip_manifests == yes ]] || stage "Prepare the data" "${prepare[@]}"
for family in ${families[@]+"${families[@]}"}; do
    stage "Train $family" "${launch[@]}" train "$family" "${train[@]}"
done
if [[ -n $nnodes ]] && ((node_rank > 0)); then
    skip_export=yes # rank 0 has the checkpoints
fi
if [[ $skip_export == no ]]; then
    ((${#families[@]})) || families=(spectocloud midi_generator)
    for family in "${families[@]}"; do
        stage "Evaluate $family" "$python" -m training evaluate "$family" "${common[@]}" "${device[@]}"
    done
    stage "Export" "$python" -m training export "${families[@]}" "${common[@]}"
    stage "Verify the exports" "$python" -m training verify "$out/exports"
fi
if [[ $dry_run == no ]]; then
    printf '\nAll done in %d min %02d s. ' $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60))
    if [[ $skip_export == no ]]; then
        printf 'The models are in %s\n' "$out/exports"
    else
        printf 'The checkpoints are in %s\n' "$out/checkpoints"
    fi
fi
