#!/usr/bin/env bash
# All tests, by the command that the README gives; then the README's main job, and the examples.
source "$(dirname "$0")/lib.sh"

readme() { # The command of README.md that starts like this.
    grep -m 1 "^$1" README.md
}

# The tests of the emulator's debugger skip aloud without it.
command -v gdb-multiarch >/dev/null || install_packages gdb-multiarch || true
eval "$(readme 'cargo test')"
main_job=$(readme 'cargo run --release --example emulator')
[ "$(eval "$main_job")" = "78498 primes up to 1000000" ]
small=$(readme 'cargo run --release --example expression')
said=$(eval "$small")
[ "${said%%$'\n'*}" = "value  28" ]
cargo run --quiet --release --example expression -- --bench 10000
cargo run --quiet --release --example probe
picture=$(mktemp)
cargo run --quiet --release --example regions -- --svg "$picture" | grep 'mappings of the host'
grep -q 'free for the host' "$picture" && rm "$picture"
