#!/usr/bin/env bash
# Everything that a change must pass, in the order in which a failure is cheapest to find.
source "$(dirname "$0")/lib.sh"

HOSTMEM_CI_BEGAN=$(date +%s)
HOSTMEM_SKIPS=$(mktemp)
export HOSTMEM_CI_BEGAN HOSTMEM_SKIPS

run() { # scripts
    for script in "$@"; do
        step "ci/$script.sh"
        "ci/$script.sh"
    done
}

run lint
# These build in folders of their own, so that they wait for nobody; what they say is shown in the end.
beside=$(mktemp)
(
    run loom asan miri tsan fuzz
    export CARGO_TARGET_DIR=$PWD/target/cross
    run targets freestanding capi capi-package luajit preload
) >"$beside" 2>&1 &
others=$!
trap 'kill $others 2>/dev/null || true' EXIT
run test features docs deps package msrv bench
code=0
wait $others || code=$?
cat "$beside"
rm "$beside"
[ $code = 0 ]
# Last, since these leave out the most where time is short.
run aarch64 aarch64-pages bsd-link

step "what was skipped, and why"
sort -u "$HOSTMEM_SKIPS"
[ -s "$HOSTMEM_SKIPS" ] || printf 'nothing\n'
rm "$HOSTMEM_SKIPS"
