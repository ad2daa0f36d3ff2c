#!/usr/bin/env bash
# Stops this rented host, so that it costs no more: ./train_cuda.sh calls it at its end with ATHANOR_STOP_HOST=1.
#
#   scripts/stop_host.sh [--dry-run]
#
# RunPod: `runpodctl stop pod`. Vast.ai: its web interface, with the key that every instance has. A virtual machine:
# `shutdown`, which stops it, and with many providers ends what it costs. A stopped pod keeps its volume, which still costs.
# Exit 6: this host cannot be stopped from inside.
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

do_it() { # do_it COMMAND...
    printf 'Stopping this host: %s\n' "${*//"${CONTAINER_API_KEY:-no key}"/...}" >&2
    [[ $dry_run == yes ]] || "$@"
}

dry_run=no
[[ ${1:-} != --dry-run ]] || dry_run=yes
if [[ -n ${RUNPOD_POD_ID:-} ]]; then
    do_it runpodctl stop pod "$RUNPOD_POD_ID"
elif [[ -n ${CONTAINER_ID:-} && -n ${CONTAINER_API_KEY:-} ]]; then
    do_it curl --fail --silent --show-error --retry 5 --request PUT --header "Authorization: Bearer $CONTAINER_API_KEY" \
        --header 'Content-Type: application/json' --data '{"state": "stopped"}' \
        "https://console.vast.ai/api/v0/instances/$CONTAINER_ID/"
elif [[ -f ${ATHANOR_HOST_ROOT:-}/.dockerenv || -n ${KUBERNETES_SERVICE_HOST:-}${container:-} ]]; then
    printf 'error: this container knows no way to stop its host: stop it on the page of its provider.\n' >&2
    exit 6
elif [[ $(id -u) == 0 ]]; then
    do_it shutdown -h +1
else
    do_it sudo -n shutdown -h +1
fi
