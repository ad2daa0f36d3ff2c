#!/usr/bin/env bash
# Which build of torch fits this host's NVIDIA driver? Prints the wheel index to take torch from, or nothing where pip's
# own build (from PyPI) is the right one; prints the choice and its reason on standard error.
# Exit 6: no build fits, and the message names the driver that is needed.
#
#   TORCH_INDEX=URL (or empty, for pip's own) in the environment decides instead.
#
# torch 2.13 is published for CUDA 13.0 (on PyPI; GPUs from compute capability 7.5 on) and, on PyTorch's own index, for
# CUDA 12.6 (5.0 to 9.0). By NVIDIA's minor-version compatibility a build for CUDA 13 runs from driver 580 on, one for
# any CUDA 12 from driver 525.60.13 on:
#   https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
#   https://github.com/pytorch/pytorch/blob/main/RELEASE.md (CUDA support matrix)
set -euo pipefail
[[ $- == *p* ]] || exec env -u SHELLOPTS -u BASHOPTS "$BASH" -p -- "${BASH_SOURCE[0]}" "$@" # takes nothing from the user's shell

# shellcheck source=scripts/environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

cuda12=https://download.pytorch.org/whl/cu126
driver12=525.60.13 driver13=580 # the oldest for each
first13=7.5 last12=9.0          # compute capabilities

say() { printf '%s\n' "$*" >&2 || true; }
refuse() { say "error: $*"; exit 6; }
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; } # at_least VERSION OLDEST

if [[ -n ${TORCH_INDEX+given} ]]; then
    own="pip's own index"
    say "torch: from ${TORCH_INDEX:-$own}, because TORCH_INDEX says so."
    printf '%s\n' "$TORCH_INDEX"
    exit 0
fi
if ! command -v nvidia-smi > /dev/null; then
    say "torch: pip's own build; this host has no NVIDIA driver."
    exit 0
fi
query() { timeout 60 nvidia-smi --query-gpu="$1" --format=csv,noheader 2> /dev/null | tr -d ' \r' | grep -E '^[0-9]+(\.[0-9]+)*$' | sort -Vu; }
driver=$(query driver_version | head -n 1 || true)
if [[ -z $driver ]]; then
    output=$(timeout 60 nvidia-smi 2>&1 | head -n 3 | tr '\n' ' ' || true)
    say "torch: pip's own build; nvidia-smi reports no driver version (its output: ${output:0:200})"
    exit 0
fi
mapfile -t capabilities < <(query compute_cap || true)
oldest=${capabilities[0]:-$first13} newest=${capabilities[-1]:-$first13}

if ! at_least "$driver" "$driver12"; then
    refuse "the NVIDIA driver $driver is too old for every build of torch that Athanor runs with. It needs $driver12 or newer
(for CUDA 12), better $driver13 or newer (for CUDA 13). On Ubuntu: sudo ubuntu-drivers install --gpgpu, then reboot; on a
rented host choose an image with a newer driver. Without a GPU: --cpu."
elif ! at_least "$oldest" "$first13" && ! at_least "$last12" "$newest"; then
    refuse "the GPUs of this host are too unlike (compute capabilities ${capabilities[*]}): no build of torch has both. Make
some of them visible with CUDA_VISIBLE_DEVICES and choose for them with TORCH_INDEX: $cuda12 for those up to $last12,
or empty for those from $first13 on."
elif ! at_least "$last12" "$newest" && ! at_least "$driver" "$driver13"; then
    refuse "a GPU of compute capability $newest needs torch for CUDA 13, and that needs the NVIDIA driver $driver13 or newer;
this host has $driver. On Ubuntu: sudo ubuntu-drivers install --gpgpu, then reboot."
elif ! at_least "$oldest" "$first13"; then
    say "torch: the CUDA 12.6 build; the driver $driver runs it, and CUDA 13 no longer supports compute capability $oldest."
    printf '%s\n' "$cuda12"
elif at_least "$driver" "$driver13"; then
    say "torch: pip's own build, for CUDA 13; the driver $driver runs it ($driver13 or newer does)."
else
    say "torch: the CUDA 12.6 build; the driver $driver runs it ($driver12 or newer does), and CUDA 13 needs $driver13."
    printf '%s\n' "$cuda12"
fi
