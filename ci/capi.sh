#!/usr/bin/env bash
# The malloc as it is installed: how large it is, and that it serves programs for AArch64, too. Its tests
# on this machine are among all others.
source "$(dirname "$0")/lib.sh"
source ci/lib-aarch64.sh

# What a program gets at most: the code of the core's heap and of the calls, and their unwind tables.
ARCHIVE_MOST=600000
SHARED_MOST=400000

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

row() { # name, file, most
    local bytes met=yes
    bytes=$(stat -L -c %s "$2")
    [ "$bytes" -le "$3" ] || met=no
    printf 'row: %s ours=%dB peer=none:absent ratio=none target=%dB met=%s\n' "$1" "$bytes" "$3" $met
    [ $met = yes ]
}

step "install"
DESTDIR=$work capi/install.sh /usr
find "$work" -type f -o -type l | sed "s|^$work||" | sort
row malloc-archive "$work/usr/lib/libhostmem_malloc.a" $ARCHIVE_MOST
row malloc-shared "$work/usr/lib/libhostmem_malloc.so" $SHARED_MOST

step "the malloc for AArch64"
aarch64_tools || exit 0
if [ "$aarch64_cargo" != cargo ]; then
    export CARGO=$aarch64_cargo
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
DESTDIR=$work/arm TARGET=$aarch64 CROSS=aarch64-linux-gnu- capi/install.sh /usr
lib=$work/arm/usr/lib
aarch64-linux-gnu-nm -P --undefined-only "$lib/libhostmem_malloc.a" |
    awk 'NF > 1 { print $1 }' | sort -u | diff capi/malloc/undefined.aarch64.txt -

# Not among these are `children`, as children of vfork have memory of their own under qemu-user, and
# `threads`: where another thread has one of the emulator's own locks at a fork, the child waits for it.
while read -r program expected; do
    for how in static preloaded; do
        arguments=(-O1 -fno-builtin -w -pthread -I "$work/arm/usr/include")
        arguments+=("capi/malloc/tests/programs/$program.c")
        preload=()
        if [ $how = static ]; then
            arguments+=(-DSTATIC -static "$lib/libhostmem_malloc.a")
        else
            arguments+=(-ldl)
            preload=(-E "LD_PRELOAD=$lib/libhostmem_malloc.so.0")
        fi
        aarch64-linux-gnu-gcc -o "$work/$program" "${arguments[@]}"
        said=$(timeout 600 qemu-aarch64 -L /usr/aarch64-linux-gnu "${preload[@]}" "$work/$program" \
            2>/dev/null </dev/null | tail -n 1)
        printf '%-9s %-10s %s\n' "$program" $how "$said"
        [ "$said" = "$expected" ]
    done
done <<'END'
list all are there
rules all hold
misuse went on
early the end
settings secure=0 low=0 hardening=1 known=1 usable=1
END
