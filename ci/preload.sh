#!/usr/bin/env bash
# Programs that were written for other purposes, on the malloc override: each must print and return
# what it does on the C library's malloc, with blocks anywhere, with blocks below 4 GiB, and with all
# of hardening. Less than four minutes on two cores; with `long`, which has more programs and more
# for them to do, about forty. `lib-preload.sh` has the programs.
#
#   ci/preload.sh [long]         all programs in all modes
#   ci/preload.sh only NAME...   these programs, at length
#   ci/preload.sh program NAME   one of them, in the current folder, on the malloc of the caller

source "$(dirname "$0")/lib-preload.sh"

if [ "${1:-}" = program ]; then
    set -euo pipefail
    "program_$2"
    exit
fi

# What each needs: its own command, the package that brings it, and when it runs.
programs="
shell           bash            bash            short
perl            perl            perl            short
sqlite          sqlite3         sqlite3         short
git             git             git             short
gcc             g++             g++             short
python          python3         python3         short
python_tests    python3         python3         short
stress          stress-ng       stress-ng       short
redis           redis-benchmark redis-server    short
archive         xz              xz-utils        short
node            node            nodejs          short
git_here        git             git             long
clang           clang           clang           long
python_threads  python3         python3         long
python_rest     python3         python3         long
openssl         openssl         openssl         long
java            javac           default-jdk-headless long
postgres        pg_config       postgresql      long
cargo           cargo           cargo           long
"
modes=(anywhere low hardened)

source "$(dirname "$0")/lib.sh"
script=$PWD/ci/preload.sh
export LC_ALL=C PRELOAD_ROOT=$PWD
PRELOAD_HEAD=$(git rev-parse HEAD)
export PRELOAD_HEAD
unset LD_PRELOAD PRELOAD_LONG HOSTMEM_LOW4G HOSTMEM_HARDEN HOSTMEM_STATS HOSTMEM_PURGE_MS HOSTMEM_PASS
wanted=()
case "${1:-}" in
    long) export PRELOAD_LONG=1 ;;
    only)
        export PRELOAD_LONG=1
        shift
        wanted=("$@")
        ;;
esac

step "the malloc override"
cargo build --quiet --profile capi -p hostmem_malloc
override=$(realpath "${CARGO_TARGET_DIR:-target}/capi/libhostmem_malloc.so")
LD_PRELOAD=$override grep -q 'libhostmem_malloc' /proc/self/maps

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs a program in a folder of its own; keeps what it prints and returns, and its CPU time.
run_on() { # mode, program
    local folder=$work/$2.$1 code=0
    mkdir "$folder"
    [ "$1" = libc ] || local -x LD_PRELOAD=$override
    [ "$1" != low ] || local -x HOSTMEM_LOW4G=1
    [ "$1" != hardened ] || local -x HOSTMEM_HARDEN=2
    (cd "$folder" && exec timeout 1200 "$BASH" "$script" program "$2") \
        >"$folder.out" 2>"$folder.err" </dev/null || code=$?
    # In a shell of its own, so that its children are this program alone.
    times >"$folder.time"
    echo "exit code $code" >>"$folder.out"
    unset LD_PRELOAD
    rm -rf "$folder"
}

# Says whether what a program needs is there or can be installed.
can_run() { # name, command, package
    command -v "$2" >/dev/null || install_packages "$3" || return 1
    case $1 in
        python_*)
            PRELOAD_PYTHON=$(python3 -c 'import sys; print(sys.executable)')
            has_tests "$PRELOAD_PYTHON" || PRELOAD_PYTHON=/usr/bin/python3
            export PRELOAD_PYTHON
            has_tests "$PRELOAD_PYTHON" ||
                install_packages "lib$(basename "$(realpath "$PRELOAD_PYTHON")")-testsuite" 2>/dev/null
            ;;
    esac
}

has_tests() { # python
    "$1" -c 'import test.test_json, test.test_list' 2>/dev/null
}

step "programs"
ran=()
while read -r name command package when; do
    if [ ${#wanted[@]} != 0 ]; then
        [[ " ${wanted[*]} " == *" $name "* ]] || continue
    else
        [ -n "$name" ] && { [ "$when" = short ] || is_long; } || continue
    fi
    if can_run "$name" "$command" "$package"; then
        ran+=("$name")
    else
        skip "$name: $command cannot be had"
    fi
done <<<"$programs"

# As many at once as there are cores.
cores=$(nproc)
for name in "${ran[@]}"; do
    for mode in libc "${modes[@]}"; do
        while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do
            wait -n || true
        done
        run_on "$mode" "$name" &
    done
done
wait

cpu() { # mode, program
    awk -F '[ms ]+' 'END { printf "%.1f s", 60 * ($1 + $3) + $2 + $4 }' "$work/$2.$1.time"
}

step "CPU time, and what differs"
failed=()
for name in "${ran[@]}"; do
    printf '%-14s C library %s' "$name" "$(cpu libc "$name")"
    for mode in "${modes[@]}"; do
        printf ', %s %s' "$mode" "$(cpu "$mode" "$name")"
    done
    printf '\n'
    grep -qx 'exit code 0' "$work/$name.libc.out" || {
        tail -n 5 "$work/$name.libc.err" >&2
        skip "$name fails on the C library's malloc, too"
    }
    for mode in "${modes[@]}"; do
        diff -u "$work/$name.libc.out" "$work/$name.$mode.out" && continue
        failed+=("$name ($mode)")
        tail -n 40 "$work/$name.$mode.err"
    done
done
if [ ${#failed[@]} != 0 ]; then
    printf 'not as on the C library: %s\n' "${failed[*]}" >&2
    exit 1
fi
