#!/usr/bin/env bash
# Documentation builds without warnings, private items included, and the files it names exist.
source "$(dirname "$0")/lib.sh"

document() {
    cargo doc --quiet --workspace --all-features --no-deps "$@"
}
RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" document --document-private-items
RUSTDOCFLAGS="-D warnings" document

step "links between the documents"
missing=0
for file in README.md CHANGELOG.md docs/*.md; do
    for link in $(grep -oE '\]\([^)#]+' "$file" | cut -c3- | grep -vE '^https?:' || true); do
        if [ ! -e "$(dirname "$file")/$link" ]; then
            printf '%s names %s, which is not there\n' "$file" "$link" >&2
            missing=1
        fi
    done
done
exit "$missing"
