# shellcheck shell=bash disable=SC2154
# Docker for train_cuda.sh, which sources this: is there an engine, an image, a GPU; and how a stage runs in a container.
# Reads $root (the project), `show` and `warn` (printf to the console), and what the plan sets: $out, $mounts, $persist, $cpu ...
# Every function that can refuse prints why and what to do, and exits with 6.

# The folder in place of / under which signs of drivers and containers are looked for; tests set it.
host=${ATHANOR_HOST_ROOT:-}

refuse() {
    warn 'error: %s\n' "$1"
    exit 6
}

inside_container() { # a rented pod, Colab, a CI job: there is no engine in there
    [[ -e $host/.dockerenv || -e $host/run/.containerenv || -n ${KUBERNETES_SERVICE_HOST:-} || -n ${container:-} ]] ||
        grep -qE 'docker|kubepods|containerd|libpod' "$host/proc/1/cgroup" 2> /dev/null
}

why_no_engine() { # prints nothing where an engine answers, else the reason
    local output
    if ! command -v docker > /dev/null; then
        echo "Docker is not installed (https://docs.docker.com/engine/install)"
    elif ! output=$(timeout 30 docker version --format '{{.Server.Version}}' 2>&1); then
        case $output in
            *'permission denied'*) echo "you may not use the Docker engine: sudo usermod -aG docker \"\$USER\", then log in again" ;;
            *) echo "the Docker engine does not answer (sudo systemctl start docker): ${output//$'\n'/ }" ;;
        esac
    fi
}

# -- the image -----------------------------------------------------------------------------------------------------

choose_image() { # sets image, index, domains, inputs
    # the domain of the command, where it has its own lock file
    domains=${DOMAINS:-${domain:-${ATHANOR_JOB:-music}}}
    [[ -n ${DOMAINS:-} || -f $root/requirements/$domains.lock ]] || domains=core
    if [[ ${uses_store:-no} == yes && " $domains " != *' clouds '* ]]; then
        domains+=' clouds'
    fi
    [[ ${wandb:-no} == no || " $domains " == *' wandb '* ]] || domains+=' wandb'
    # a CPU build of torch is a quarter of the size of one that brings CUDA
    if ls "$root"/wheelhouse/torch-*.whl > /dev/null 2>&1; then
        index=''
    elif [[ $cpu == yes ]]; then
        index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
    else
        index=$("$root/scripts/torch_index.sh") || exit
    fi
    if [[ $cpu == yes ]]; then
        image=${ATHANOR_IMAGE:-athanor:cpu}
    else
        image=${ATHANOR_IMAGE:-athanor:gpu}
    fi
    inputs=$(
        cd -- "$root" && {
            find training scripts train_cuda.sh Dockerfile.cuda .dockerignore requirements \
                -name __pycache__ -prune -o -type f ! -name '*.py[cod]' -print0 | sort -z | xargs -0 sha256sum
            find wheelhouse -name '*.whl' -printf '%f %s\n' | sort
            printf '%s\n' "${BASE_IMAGE:-}" "$index" "$domains"
        } | sha256sum | cut -c 1-32
    )
}

build_image() { # makes $image if what it is made from has changed, unless $skip_build
    local has started=$SECONDS options=()
    has=$(docker image inspect --format '{{index .Config.Labels "athanor.inputs"}}' "$image" 2> /dev/null) || has=absent
    if [[ $skip_build == yes ]]; then
        [[ $has != absent ]] || refuse "--skip-build: there is no image $image. Leave out --skip-build once to make it."
        [[ $has == "$inputs" ]] || show 'note: --skip-build: %s was made from other sources than those here.\n' "$image"
        return
    fi
    [[ $has != "$inputs" ]] || return 0
    docker buildx version > /dev/null 2>&1 ||
        refuse "building the image needs Docker's BuildKit: install docker-buildx-plugin (Docker's own packages) or docker-buildx."
    [[ -z ${BASE_IMAGE:-} ]] || options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
    # files for hosts behind a mirror; BuildKit shows them to the build and leaves them out of the image
    [[ -z ${ATHANOR_PIP_CONF:-} ]] || options+=(--secret "id=pip_conf,src=$ATHANOR_PIP_CONF")
    [[ -z ${ATHANOR_CA_BUNDLE:-} ]] || options+=(--secret "id=ca_bundle,src=$ATHANOR_CA_BUNDLE")
    [[ -z ${ATHANOR_APT_CONF:-} ]] || options+=(--secret "id=apt_conf,src=$ATHANOR_APT_CONF")
    show 'Building the image %s (the first time takes minutes, a change of the code seconds) ...\n' "$image"
    docker buildx build --load --progress "${ATHANOR_BUILD_PROGRESS:-auto}" --file "$root/Dockerfile.cuda" --tag "$image" \
        --label "athanor.inputs=$inputs" \
        --build-arg "TORCH_INDEX=$index" \
        --build-arg "DOMAINS=$domains" \
        --build-arg "VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/training/__init__.py")" \
        --build-arg "REVISION=$(git -C "$root" rev-parse HEAD 2> /dev/null || echo unknown)" \
        --build-arg "CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        ${options[@]+"${options[@]}"} "$root" < /dev/null ||
        refuse "the image could not be built; Docker's message is above. Behind a mirror: BASE_IMAGE, TORCH_INDEX,
ATHANOR_PIP_CONF, ATHANOR_CA_BUNDLE and wheelhouse/ (docs/docker.md). Without Docker: --native."
    show 'Image ready in %d s.\n' $((SECONDS - started))
}

# -- the GPU -------------------------------------------------------------------------------------------------------

look_for_gpu() { # sets hardware and driver; refuses a GPU without a driver, before minutes go into an image
    local vendor
    hardware=no driver=no
    for vendor in "$host"/sys/bus/pci/devices/*/vendor; do
        [[ ! -r $vendor || $(< "$vendor") != 0x10de ]] || hardware=yes
    done
    [[ ! -e $host/proc/driver/nvidia/version && ! -e $host/dev/dxg ]] || driver=yes hardware=yes
    [[ $hardware == no || $driver == yes ]] || refuse "this host has an NVIDIA GPU, and nothing can use it.
The layer that is missing: the NVIDIA driver. It is not installed, or not loaded. On Ubuntu:
    sudo ubuntu-drivers install --gpgpu && sudo reboot
To train on the CPU all the same: --cpu."
}

probe_gpu() { # sets gpu=yes where a container can be given the GPU, gpu=no where the host has none; else refuses
    local output smi_output
    gpu=no
    if output=$(docker run --rm --pull never --gpus all --network none --entrypoint true "$image" 2>&1); then
        gpu=yes
        return
    fi
    output=${output//$'\n'/ }
    if [[ $hardware == no ]]; then
        [[ -z $gpus ]] || refuse "--gpus $gpus: this host has no NVIDIA GPU."
        return
    fi
    local toolkit="https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html" way
    if ! smi_output=$(timeout 60 nvidia-smi 2>&1); then
        way="The layer that is broken: the NVIDIA driver; nvidia-smi fails on this host too: ${smi_output//$'\n'/ }
A driver that was updated while it ran needs a reboot."
    else
        case $output in
            *'could not select device driver'* | *'unknown runtime'* | *'unknown or invalid runtime'* | *'unresolvable CDI devices'*)
                if command -v nvidia-ctk > /dev/null || command -v nvidia-container-runtime-hook > /dev/null; then
                    way="The layer that is missing: the runtime. The NVIDIA container toolkit is installed, but the engine is not configured for it:
    sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
                else
                    way="The layer that is missing: the NVIDIA container toolkit. $toolkit
    sudo apt-get install -y nvidia-container-toolkit
    sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
                fi
                ;;
            *'driver not loaded'* | *'driver/library version mismatch'* | *'nvml error'* | *'libnvidia-ml.so'*)
                way="The layer that is broken: the NVIDIA driver, as the toolkit sees it. A driver that was updated while it ran needs a
reboot; one without its libraries (libnvidia-compute-*) needs them installed."
                ;;
            *'unsatisfied condition'*)
                way="The layer that is too old: the NVIDIA driver. On Ubuntu: sudo ubuntu-drivers install --gpgpu && sudo reboot"
                ;;
            *nvidia-container* | *'exec: "nvidia'* | *'OCI runtime create failed'*)
                way="The layer that is broken: the runtime (the NVIDIA container toolkit's hook). Install it again and configure the engine:
    sudo apt-get install --reinstall -y nvidia-container-toolkit
    sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
                ;;
            *) way="The layer that fails: Docker itself, before the GPU. Try: docker run --rm --entrypoint true $image" ;;
        esac
    fi
    refuse "this host has an NVIDIA GPU, and a container cannot use it.
$way
Docker reported: $output
To train on the CPU all the same: --cpu. Without Docker: --native."
}

# -- the plan ------------------------------------------------------------------------------------------------------

planned_in_image() { # planned_in_image WORDS...: the plan of a command, on a host that has Docker and no Python
    local word reason path paths=() look options=() cpu=no skip_build=no domain=${ATHANOR_JOB:-music}
    local uses_store=no
    [[ ${1:---} == -* ]] || domain=$1
    for word in "${ATHANOR_PERSIST:-}" "$@"; do
        case $word in
            --cpu) cpu=yes ;;
            --skip-build) skip_build=yes ;;
            s3://* | gs://* | az://* | --*=s3://* | --*=gs://* | --*=az://*) uses_store=yes ;;
        esac
    done
    reason=$(why_no_engine)
    [[ -z $reason ]] || refuse "there is neither a Python (3.11 to 3.13) nor Docker here: $reason. On Debian or Ubuntu:
    sudo apt-get install python3 python3-venv"
    {
        [[ $cpu == yes ]] || look_for_gpu
        choose_image
        build_image
    } >&2
    for word in $(compgen -e | grep '^ATHANOR_'); do options+=(--env "$word"); done
    look=(docker run --rm --pull never --network none --read-only --user "$(id -u):$(id -g)" ${options[@]+"${options[@]}"}
        --env "ATHANOR_OUT=${ATHANOR_OUT:-$root}" --env "ATHANOR_PWD=$PWD" --entrypoint python)
    # The first run prints the paths that the command names; for the second they are mounted. For a folder that does not
    # exist yet, the one around it is mounted.
    eval "paths=($("${look[@]}" "$image" -S -m training.runner --paths -- "$@"))" || exit
    local binds=()
    declare -A bound=()
    for path in ${paths[@]+"${paths[@]}"}; do
        [[ -e $path ]] || path=$(dirname -- "$path")
        [[ ! -e $path || $path == / || -n ${bound[$path]:-} ]] || bind "$path" readonly
        bound[$path]=yes
    done
    "${look[@]:0:${#look[@]}-2}" ${binds[@]+"${binds[@]}"} --entrypoint python "$image" -S -m training.runner -- "$@"
}

# -- a container ---------------------------------------------------------------------------------------------------

bind() { # bind FOLDER [readonly]: the same path inside as outside. CSV, so that commas and quotes are part of a name.
    local field=${1//\"/\"\"}
    binds+=(--mount "type=bind,\"source=$field\",\"target=$field\"${2:+,$2}")
}

bind_data() { # bind_data FOLDER: read-only; where it is reached through a link, under its own name too
    local folder real
    real=$(readlink -f -- "$1" && printf x) # the x keeps a newline at the end of a name
    for folder in "$1" "${real%$'\n'x}"; do
        [[ -z ${bound[$folder]:-} ]] || continue
        bound[$folder]=yes
        bind "$folder" readonly
    done
}

check_mount() { # can a container have this folder under its own name?
    local own
    [[ $(printf %s "$1" | iconv -f UTF-8 -t UTF-8 2> /dev/null && printf x) == "$1"x ]] ||
        refuse "'$1' is no UTF-8, and Docker cannot mount it. Rename or link it, or use --native."
    for own in /usr/local/lib/athanor /usr/bin /usr/lib /etc/passwd /bin /lib /dev/shm /proc/self /sys/class /tmp/cache; do
        [[ $own/ != "${1%/}/"* ]] || refuse "'$1' cannot be mounted in a container: it would hide the image's own files.
Name a folder further down, or use --native."
    done
}

prepare_container() { # sets container, the words before a stage's command, and container_name
    local folder name user groups=() group binds=() folders=() passed=WANDB
    declare -A bound=()
    [[ ${persist:-} != /* ]] || folders+=("$persist") # the other kind is a URL
    for folder in "$out" ${mounts[@]+"${mounts[@]}"} ${folders[@]+"${folders[@]}"}; do
        check_mount "$folder"
    done
    user=$(id -u):$(id -g)
    if [[ $user == 0:* && ${SUDO_UID:-0} != 0 ]]; then
        user=$SUDO_UID:${SUDO_GID:-$SUDO_UID}
    elif [[ $user == 0:* && -d $out ]]; then
        user=$(stat -c '%u:%g' -- "$out") # a folder that someone else owns stays theirs
    fi
    [[ $user != 0:* ]] || show 'note: you are root, so the stages run as root too, though without any of its capabilities.\n'
    for group in $(id -G); do
        [[ $group == 0 ]] || groups+=(--group-add "$group")
    done

    # Docker would make a folder that is missing, as root.
    for name in . data checkpoints exports cache runs; do
        folder=$out/$name
        if [[ $dry_run == no && ! -d $folder ]]; then
            mkdir -p -- "$folder" || refuse "'$folder' cannot be made."
            [[ $(id -u) != 0 ]] || chown -- "$user" "$folder"
        fi
        [[ $name != . ]] || continue # the project's own folder has .env and .git, which no stage needs
        bound[$folder]=yes
        bind "$folder"
    done
    if [[ ${persist:-} == /* ]]; then
        if [[ $dry_run == no && ! -d $persist ]]; then
            mkdir -- "$persist" || refuse "--persist '$persist' cannot be made."
            [[ $(id -u) != 0 ]] || chown -- "$user" "$persist"
        fi
        bound[$persist]=yes
        bind "$persist"
    fi
    if [[ ${uses_store:-no} == yes ]]; then
        passed='WANDB|AWS|GOOGLE|AZURE'
        for name in GOOGLE_APPLICATION_CREDENTIALS GOOGLE_SERVICE_ACCOUNT GOOGLE_SERVICE_ACCOUNT_PATH \
            AWS_WEB_IDENTITY_TOKEN_FILE AZURE_FEDERATED_TOKEN_FILE; do # these name files
            [[ ${!name:-} != /* || ! -f ${!name} ]] || bind_data "${!name}"
        done
    fi
    for folder in ${mounts[@]+"${mounts[@]}"}; do
        bind_data "$folder"
    done

    container_name=athanor-$$-$RANDOM
    container=(
        docker run --rm --name "$container_name" --pull never --user "$user" ${groups[@]+"${groups[@]}"}
        --read-only --tmpfs "/tmp:rw,exec,nosuid,nodev,mode=1777"
        --cap-drop=ALL --security-opt=no-new-privileges --pids-limit=16384
        --shm-size="${ATHANOR_SHM_SIZE:-8g}" --stop-timeout=600
        "${binds[@]}"
        --env "ATHANOR_OUT=$out"
        # what is compiled once serves every later stage
        --env "NUMBA_CACHE_DIR=$out/cache/compiled/numba"
        --env "TORCHINDUCTOR_CACHE_DIR=$out/cache/compiled/inductor"
        --env "TRITON_CACHE_DIR=$out/cache/compiled/triton"
    )
    # By name only: a value given here would be visible in the process list.
    for name in $(compgen -e | grep -E "^($passed|CUDA|NCCL|GLOO|OMP|GOMP|OPENBLAS|MKL|TORCH|PYTORCH)_|^(HF_TOKEN|HF_ENDPOINT|ATHANOR_(HEALTH_SECONDS|RESTARTS|RESTART_PAUSES|RUNNER)|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY)\$"); do
        [[ $name == TORCH_INDEX || $name == TORCHINDUCTOR_CACHE_DIR ]] || container+=(--env "$name")
    done
    [[ $gpu == no ]] || container+=(--gpus all)
    # other nodes must reach the first one's port, and it them
    [[ -z $nnodes ]] || ((nnodes == 1)) || [[ ${ATHANOR_DOCKER_RUN:-} == *--network* ]] || container+=(--network host)
    # a terminal shows the progress bar; without one (cron, nohup, CI) Docker would refuse
    [[ ! -t 1 || ! -t 2 ]] || container+=(--tty)
    # shellcheck disable=SC2206  # words on purpose: further options of `docker run` that this host needs
    container+=(${ATHANOR_DOCKER_RUN:-} "$image")
}

# The container is a child of the engine, not of this script: if the script is killed with -9, the container continues to
# train. So a coprocess reads a pipe whose write end only this script has (bash closes it in everything that it executes).
# A line in the pipe means that the container has ended; end of file means that the script has gone, and the coprocess
# then sends SIGTERM to the container. It has a separate process group, so that signals to the script's do not reach it.
guard='' guard_process=''
guard_container() { # called before the container is started: stops it if this script is killed
    set -m
    coproc GUARD {
        trap '' INT TERM HUP
        if ! read -r; then
            for ((tries = 0; tries < 150; tries++)); do # for half a minute: the engine may be creating it still
                ! docker kill --signal TERM "$container_name" || break
                sleep 0.2
            done
        fi
    } > /dev/null 2>&1
    set +m
    guard=${GUARD[1]} guard_process=$GUARD_PID
}

dismiss_guard() { # called when the container has ended, or got SIGTERM: a second SIGTERM would end it at once
    [[ -n $guard ]] || return 0
    echo >&"$guard" || true # it may have been killed
    guard=''
    while kill -0 "$guard_process" 2> /dev/null; do
        wait "$guard_process" 2> /dev/null || true # a trapped signal ends `wait` early
    done
}

container_ended() { # what remains to be done after `docker run`; $code is its exit code
    dismiss_guard
    if ((code == 125)); then
        warn "Docker could not start the container; its message is above.\n"
        code=6
    elif ((code > 128)); then
        # If only the client was killed, the container still runs and holds the lock of the folder. Otherwise it has ended.
        docker stop --time 600 "$container_name" > /dev/null 2>&1 || true
    fi
}
