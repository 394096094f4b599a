#!/usr/bin/env bash
# The benchmarks run, and print every row that they have. What the rows say is not judged here: the
# machine may be busy.
source "$(dirname "$0")/lib.sh"

header=/usr/include/asmjit/core.h
[ -e $header ] || install_packages libasmjit-dev || skip "AsmJit as a peer: libasmjit-dev cannot be had"

for library in libmimalloc.so.2:libmimalloc2.0 libjemalloc.so.2:libjemalloc2; do
    ldconfig -p | grep "${library%:*}" >/dev/null || install_packages "${library#*:}" ||
        skip "${library%:*} as a peer: it cannot be had"
done

# What ci/strangers.sh has built, which takes minutes.
strangers=${TMPDIR:-/tmp}/hostmem-strangers
[ ! -e "$strangers/built" ] || export HOSTMEM_STRANGERS=${HOSTMEM_STRANGERS-$strangers}

names() { # The rows' names, of lines that are rows.
    sed -n 's/^row: \([^ ]*\) .*/\1/p'
}

compare() { # benchmark, names it lists, names it printed
    if [ "$3" != "$2" ]; then
        printf '%s printed other rows than it lists\n' "$1" >&2
        exit 1
    fi
    documented=$(sed -n "/^## $1: the last full table/,/^## /p" docs/PERFORMANCE.md | names)
    if [ "$documented" != "$2" ]; then
        printf 'docs/PERFORMANCE.md has other rows than %s lists\n' "$1" >&2
        exit 1
    fi
}

for bench in jit region seam preload emulator; do
    step "$bench"
    listed=$(cargo bench --quiet -p hostmem-bench --bench "$bench" -- --list)
    printed=$(cargo bench --quiet -p hostmem-bench --bench "$bench" -- --quick | tee >(cat >&2) | names)
    compare "$bench" "$listed" "$printed"
done

# Its peers take minutes to build, so here it has none but the C library's heap. One row of each
# kind shows that it runs; every run prints all rows.
heap() {
    cargo bench --quiet -p hostmem-bench --no-default-features --bench heap -- "$@"
}

step "heap"
listed=$(heap --list)
for row in churn-p1-10k-vs-malloc cross-thread-p1-vs-malloc latency-p1-10k-vs-malloc \
    growth-8m-vs-malloc thread-4-blocks-of-500-vs-malloc resident-freed drift; do
    said=$(heap --quick --only "$row")
    compare heap "$listed" "$(names <<<"$said")"
    grep "^row: $row " <<<"$said"
    if grep -q "^row: $row .*skipped" <<<"$said"; then
        printf '%s was not measured\n' "$row" >&2
        exit 1
    fi
done
