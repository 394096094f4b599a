#!/usr/bin/env bash
# The emulator, hosted and freestanding, on an AArch64 kernel whose pages have 16 KiB: Debian's, in
# qemu-system-aarch64.
source "$(dirname "$0")/lib.sh"
source ci/lib-aarch64.sh

folder=$PWD/target/aarch64-pages
guests=$PWD/examples/emulator/guests

# Downloads the newest kernel with such pages, and a shell for it.
fetch() {
    dpkg --add-architecture arm64 2>/dev/null && install_packages qemu-system-arm cpio || return 1
    # Names without the version of a kernel are of packages that have none.
    local kernel named='^linux-image-[0-9][^ ]*-arm64-16k(-unsigned)?$'
    kernel=$(apt-cache search --names-only "$named" | cut -d ' ' -f 1 | sort -V | tail -1)
    [ -n "$kernel" ] || return 1
    mkdir -p "$folder" && cd "$folder" || return 1
    apt-get download -qq "$kernel:arm64" busybox-static:arm64 2>/dev/null || return 1
    for package in ./*.deb; do
        dpkg -x "$package" . && rm "$package"
    done
    cd - >/dev/null
    have
}

have() {
    command -v qemu-system-aarch64 cpio >/dev/null &&
        compgen -G "$folder/boot/vmlinuz-*" >/dev/null && [ -x "$(busybox)" ]
}

busybox() {
    find "$folder" -path '*/bin/busybox' -type f
}

step "an AArch64 kernel with pages of 16 KiB"
if late; then
    skip "AArch64 with pages of 16 KiB: this machine is slow and time is short"
    exit 0
fi
aarch64_tools || exit 0
if ! have && ! fetch; then
    skip "AArch64 with pages of 16 KiB: no kernel, shell or qemu-system-aarch64 can be had"
    exit 0
fi

step "the emulator for it"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
    "$aarch64_cargo" build --quiet --target "$aarch64" --example emulator --target-dir target
build_freestanding examples/emulator/freestanding "$aarch64"

step "guests on that kernel"
root=$(mktemp -d)
trap 'rm -r "$root"' EXIT
mkdir -p "$root"/{bin,proc,tmp,dev,guests}
cp "$(busybox)" "$root/bin/busybox"
cp "target/$aarch64/debug/examples/emulator" "$root/hosted"
cp "target/embed/$aarch64/release/emulator" "$root/freestanding"
cp "$guests"/*.elf "$root/guests"
cat >"$root/init" <<'END'
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmp /tmp
busybox grep -q -m 1 "^KernelPageSize: *16 kB" /proc/self/smaps && echo "pages of 16 KiB"
run() { # program, guest, options
    program=$1 guest=$2 argument=
    shift 2
    case $guest in
        quicksort | threads) argument=2000 ;;
        sieve | sha256) argument=1000 ;;
    esac
    if said=$(/$program "$@" --root /tmp /guests/$guest.elf $argument 2>&1); then
        echo "$program $guest: $said"
    else
        echo "failed: $program $guest: $said"
    fi
}
for program in hosted freestanding; do
    # files maps a file to be written, which is refused here.
    for guest in hog matrix pages quicksort reserve rewrites sha256 sieve signals threads thunks \
        tree; do
        run $program $guest
    done
    run $program pages --interpret
done
echo "all were run"
busybox poweroff -f
END
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$folder/initrd.gz"
timeout 900 qemu-system-aarch64 -M virt -cpu max,pauth-impdef=on -smp 2 -m 4G \
    -accel tcg,thread=multi -nographic -no-reboot \
    -kernel "$(compgen -G "$folder/boot/vmlinuz-*" | head -1)" -initrd "$folder/initrd.gz" \
    -append "console=ttyAMA0 quiet panic=-1" </dev/null 2>&1 |
    tee "$folder/log"
grep -q "^pages of 16 KiB" "$folder/log"
grep -q "^all were run" "$folder/log"
if grep -q "^failed: " "$folder/log"; then
    exit 1
fi
for program in hosted freestanding; do
    grep -q "^$program sieve: 168 primes up to 1000" "$folder/log"
    grep -q "^$program threads: 4 threads took 2000 numbers" "$folder/log"
    [ "$(grep -c "^$program pages: pages of 4 KiB" "$folder/log")" = 2 ]
done
