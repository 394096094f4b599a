#!/usr/bin/env bash
# Documentation builds without warnings, private items included, and the files it names exist.
source "$(dirname "$0")/lib.sh"

document() {
    cargo doc --quiet --workspace --all-features --no-deps "$@"
}
RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" document --document-private-items
RUSTDOCFLAGS="-D warnings" document

if cargo +nightly --version >/dev/null 2>&1; then
    step "the documentation as docs.rs builds it"
    RUSTDOCFLAGS="-D warnings --cfg docsrs" cargo +nightly doc --quiet --all-features --no-deps \
        --target-dir target/docs -p hostmem -p hostmem-core -p hostmem-linux
    for item in type.GlobalHeap fn.low_heap macro.global_heap struct.StaticRegion type.JitRuntime; do
        [ -e "target/docs/doc/hostmem/$item.html" ] || { printf 'no %s\n' "$item" >&2; exit 1; }
    done
    grep -q 'crate feature <code>std</code>' target/docs/doc/hostmem/fn.spawn_purger.html
else
    skip "the documentation as docs.rs builds it: there is no nightly compiler"
fi

step "links between the documents"
missing=0
for file in README.md CHANGELOG.md docs/*.md adapters/*/README.md; do
    for link in $(grep -oE '\]\([^)#]+' "$file" | cut -c3- | grep -vE '^https?:' || true); do
        if [ ! -e "$(dirname "$file")/$link" ]; then
            printf '%s names %s, which is not there\n' "$file" "$link" >&2
            missing=1
        fi
    done
done
exit "$missing"
