#!/usr/bin/env bash
# Each crate packs what it needs to build by itself: README, licences, no tests and no CI. And what
# became of the public interface since the last release, where there is one to compare with.
source "$(dirname "$0")/lib.sh"

crates=(hostmem-core hostmem-linux hostmem-bsd hostmem-netbsd hostmem hostmem-closure-ffi hostmem-cranelift hostmem-dynasm)
chosen=()
for crate in "${crates[@]}"; do
    chosen+=(-p "$crate")
    step "what $crate packs"
    files=$(cargo package --quiet --list --allow-dirty -p "$crate")
    for file in README.md LICENSE-MIT LICENSE-APACHE src/lib.rs; do
        grep -qx "$file" <<<"$files" || { printf '%s packs no %s\n' "$crate" "$file" >&2; exit 1; }
    done
    if grep -E '^(ci|tests|benches|capi|\.ci)/' <<<"$files"; then
        printf '%s packs what needs the workspace\n' "$crate" >&2
        exit 1
    fi
    wc -l <<<"$files"
done

step "each crate builds from its package alone"
# Together, since each needs those before it, which no registry has. Afresh: cargo keeps what it has
# unpacked and built of a version, also of a registry that is a folder, whose name there begins with
# a dash.
rm -rf target/package-build "${CARGO_HOME:-$HOME/.cargo}"/registry/{src,cache}/-*/hostmem*
cargo publish --dry-run --quiet --allow-dirty --target-dir target/package-build "${chosen[@]}"

step "the public interface"
if [ -z "$(git tag --list 'v*')" ]; then
    printf 'there is no release yet to compare with\n'
elif command -v cargo-semver-checks >/dev/null || timeout 900 cargo install --quiet --locked cargo-semver-checks; then
    last=$(git describe --tags --abbrev=0 --match 'v*')
    cargo semver-checks --baseline-rev "$last" "${chosen[@]}"
else
    skip "cargo-semver-checks is not installed and could not be built"
fi
