#!/usr/bin/env bash
# Runs a job in a rented pod (RunPod, Vast.ai) from its environment variables, once its code is there:
#
#   JOB      words of ./train_cuda.sh: 'music --midi-root s3://BUCKET/midi'
#   COPIES   a place for verified copies: s3://BUCKET/PREFIX, or a folder on a network volume
#   ATHANOR_STOP_HOST=1   stop the pod when the job has ended
#
# Its output is also in run.log. A pod that starts again, after an interruption, continues the job.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

: "${JOB:?words of ./train_cuda.sh}" "${COPIES:?a place for copies, such as s3://BUCKET/PREFIX}"
if ! command -v ffmpeg > /dev/null; then
    apt-get update -qq && apt-get install -y -qq ffmpeg python3-venv
fi
eval "words=($JOB)"
exec > >(tee -a run.log) 2>&1
code=0
# shellcheck disable=SC2154  # eval sets words
./train_cuda.sh "${words[@]}" --native --persist "$COPIES" || code=$?
# A job that was refused before it began has not stopped the pod; one that was interrupted is to be continued.
if [[ ${ATHANOR_STOP_HOST:-} == 1 && $code != 0 && $code != 75 ]]; then
    scripts/stop_host.sh
fi
exit "$code"
