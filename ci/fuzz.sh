#!/usr/bin/env bash
# Fuzz targets, each for five seconds, or for as many as the first argument says. What they find
# lies in tests/fuzz/artifacts, and runs again with its path as the argument of the program.
source "$(dirname "$0")/lib.sh"

seconds=${1:-5}
host=$(rustc -vV | sed -n 's/^host: //p')

if ! cargo +nightly --version 2>/dev/null; then
    skip "fuzzing: there is no nightly compiler"
    exit 0
fi
if ! command -v c++ >/dev/null; then
    skip "fuzzing: libFuzzer is written in C++, and there is no compiler for it"
    exit 0
fi

# As cargo-fuzz builds: counters at every edge, comparisons told to the fuzzer, AddressSanitizer.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS="--cfg fuzzing $coverage -Zsanitizer=address -Ccodegen-units=1"

cd tests/fuzz
if ! cargo +nightly fetch --quiet --locked; then
    skip "fuzzing: its packages cannot be had"
    exit 0
fi
for target in guest heap jit range_map region; do
    mkdir -p "corpus/$target" "artifacts/$target"
    step "fuzz $target for $seconds s"
    cargo +nightly run --quiet --locked --release --target "$host" --target-dir ../../target/fuzz --bin "$target" -- \
        -max_total_time="$seconds" -max_len=8192 -artifact_prefix="artifacts/$target/" -print_final_stats=1 \
        "corpus/$target"
done
