#!/usr/bin/env bash
# Every feature alone, none, and all; and what the compiler says where a backend is named and none
# is active, where the heap of the process is and there is no standard library, and for 32 bits.
source "$(dirname "$0")/lib.sh"

for features in "" linux bsd netbsd std sim linux,sim linux,std; do
    step "hostmem with features '$features'"
    cargo check --quiet -p hostmem --no-default-features --features "$features"
done
cargo check --quiet -p hostmem --all-features
cargo build --quiet -p hostmem-core --no-default-features
cargo build --quiet -p hostmem-linux --no-default-features

# tests/backend names what a backend gives.
check_backend() { # target, features
    (cd tests/backend && cargo check --quiet --target "$1" --features "$2" --target-dir ../../target/backend)
}

# Without a backend it does not build, and the compiler says one sentence, as often as it likes.
expect_sentence() { # target, features, sentence
    local said errors
    if said=$(check_backend "$1" "$2" 2>&1); then
        printf '%s: this builds without a backend\n' "$1" >&2
        exit 1
    fi
    errors=$(grep '^error\[' <<<"$said" | sort -u)
    if [[ $errors != *": $3"* || $errors == *$'\n'* ]]; then
        printf '%s\n%s: not what was expected: %s\n' "$said" "$1" "$3" >&2
        exit 1
    fi
    printf '%s\n' "$errors"
}

off="hostmem's backend for this target is off: enable its feature"
for pair in unknown-linux-gnu:linux unknown-freebsd:bsd unknown-netbsd:netbsd unknown-none:; do
    target=x86_64-${pair%:*} feature=${pair#*:}
    step "a backend's provider on $target"
    if ! has_library "$target"; then
        skip "$target: its library cannot be had"
    elif [ -n "$feature" ]; then
        check_backend "$target" "$feature"
        expect_sentence "$target" "" "$off \`$feature\`"
        expect_sentence "$target" heap "$off \`$feature\`"
        without_std="hostmem's \`GlobalHeap\` needs the standard library: enable hostmem's feature \`std\`"
        expect_sentence "$target" "heap,$feature" "$without_std"
        check_backend "$target" "heap,$feature,std"
    else
        expect_sentence "$target" linux,bsd,netbsd "hostmem has no backend for this target"
    fi
done

step "a target with 32 bits"
if has_library i686-unknown-linux-gnu; then
    said=$(check_backend i686-unknown-linux-gnu linux 2>&1) && exit 1
    errors=$(grep '^error' <<<"$said" | grep -v 'could not compile' | sort -u)
    if [ "$errors" != "error: hostmem is for targets with 64-bit addresses" ]; then
        printf '%s\n' "$said" >&2
        exit 1
    fi
    printf '%s\n' "$errors"
else
    skip "a target with 32 bits: its library cannot be had"
fi
