#!/usr/bin/env bash
# What is depended on: no libc below the Linux backend, licences, sources.
source "$(dirname "$0")/lib.sh"

step "no libc under hostmem-linux, none and no OS under hostmem-core"
for package in hostmem-linux hostmem-core; do
    tree=$(cargo tree --quiet -p "$package" --edges normal --prefix none)
    printf '%s\n' "$tree"
    if grep -qE '^(libc|errno|nix|std|alloc)\b' <<<"$tree"; then
        printf '%s depends on a C library\n' "$package" >&2
        exit 1
    fi
done
cargo tree --quiet -p hostmem-core --edges normal --prefix none | { ! grep -q '^rustix'; }

step "layers: lower modules of the core never name higher ones"
# page → provider → {arena, fork} → {intervals → heap, range_map → {counted, region}, jit, sim};
# arch and sync beside page.
forbid() { # files, modules that their code must not name
    if grep -rnE "crate::($2)\b|^    ($2)::" $1 | grep -vE ':[0-9]+: *//'; then
        printf 'the layer law is broken above\n' >&2
        exit 1
    fi
}
above="counted|heap|intervals|range_map|region|jit|sim"
forbid "core/src/page.rs core/src/arch core/src/sync.rs" "provider|arena|fork|probe|$above"
forbid "core/src/provider" "arena|fork|probe|$above"
forbid "core/src/arena.rs core/src/fork.rs core/src/probe.rs" "$above"
forbid "core/src/counted" "heap|intervals|region|jit|sim"
forbid "core/src/intervals.rs core/src/intervals" "counted|heap|range_map|region|jit|sim|probe"
forbid "core/src/range_map" "counted|heap|region|jit|sim|probe"
forbid "core/src/region" "counted|heap|jit|sim"
forbid "core/src/heap" "counted|range_map|region|jit|sim|probe"
forbid "core/src/jit" "counted|heap|range_map|region|sim"
forbid "core/src/sim" "arena|counted|heap|range_map|region|jit"

step "licences and sources"
if command -v cargo-deny >/dev/null || timeout 900 cargo install --quiet --locked cargo-deny; then
    cargo deny --all-features check bans licenses sources
else
    skip "cargo-deny is not installed and could not be built"
fi
