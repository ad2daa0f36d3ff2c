#!/usr/bin/env bash
# On-start script of a Vast.ai instance (paste it, or --onstart vast_onstart.sh). Set as the instance's environment:
#
#   -e JOB='music --midi-root s3://BUCKET/midi' -e COPIES=s3://BUCKET/PREFIX -e REPOSITORY=https://github.com/YOU/athanor.git
#   -e AWS_ACCESS_KEY_ID=... -e AWS_SECRET_ACCESS_KEY=... -e AWS_REGION=... -e ATHANOR_STOP_HOST=1
#
# Vast.ai runs it at each start of the instance; a job that was interrupted continues. Its output: /workspace/athanor/run.log
set -euo pipefail
mkdir -p /workspace
cd /workspace
[[ -d athanor ]] || git clone --quiet "${REPOSITORY:?the address of your copy of the project}" athanor
git -C athanor checkout --quiet "${REF:-main}"
nohup bash athanor/clouds/pod.sh > /dev/null 2>&1 &
