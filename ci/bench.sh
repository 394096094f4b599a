#!/usr/bin/env bash
# The benchmarks run, and print every row that they have. What the rows say is not judged here: the
# machine may be busy.
source "$(dirname "$0")/lib.sh"

header=/usr/include/asmjit/core.h
if [ ! -e $header ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q && apt-get install -q -y libasmjit-dev || true
fi
[ -e $header ] || skip "AsmJit as a peer: libasmjit-dev cannot be had"

names() { # The rows' names, of lines that are rows.
    sed -n 's/^row: \([^ ]*\) .*/\1/p'
}

for bench in jit region; do
    step "$bench"
    listed=$(cargo bench --quiet -p hostmem-bench --bench "$bench" -- --list)
    printed=$(cargo bench --quiet -p hostmem-bench --bench "$bench" -- --quick | tee >(cat >&2) | names)
    if [ "$printed" != "$listed" ]; then
        printf '%s printed other rows than it lists\n' "$bench" >&2
        exit 1
    fi
    documented=$(sed -n "/^## $bench: the last full table/,/^## /p" docs/PERFORMANCE.md | names)
    if [ "$documented" != "$listed" ]; then
        printf 'docs/PERFORMANCE.md has other rows than %s lists\n' "$bench" >&2
        exit 1
    fi
done
