#!/usr/bin/env bash
# Everything that a change must pass, in the order in which a failure is cheapest to find.
source "$(dirname "$0")/lib.sh"

HOSTMEM_CI_BEGAN=$(date +%s)
export HOSTMEM_CI_BEGAN
for script in lint test loom asan features docs deps msrv bench fuzz cross; do
    step "ci/$script.sh"
    "ci/$script.sh"
done
