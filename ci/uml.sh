#!/usr/bin/env bash
# Tests of Linux's addresses and mappings on another kernel: User Mode Linux, an older one, whose
# addresses end at no power of two.
source "$(dirname "$0")/lib.sh"

tests=(addresses:: replacing:: faults::)

step "User Mode Linux"
if ! command -v linux.uml >/dev/null && ! install_packages user-mode-linux; then
    skip "User Mode Linux cannot be had"
    exit 0
fi

step "the tests"
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
# The file system of this machine is the guest's too.
program=$(cargo test --quiet -p hostmem --features sim,std --test provider --no-run \
    --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$program" ]
cat >"$folder/init" <<END
#!/bin/sh
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
cd "$PWD"
if ! "$program" --test-threads=1 ${tests[*]} 2>&1; then
    echo "failed: $program"
fi
echo all were run
echo o >/proc/sysrq-trigger
sleep 10
END
chmod +x "$folder/init"

step "on its kernel"
TMPDIR=/dev/shm timeout 300 linux.uml mem=512M root=/dev/root rootfstype=hostfs rootflags=/ rw \
    init="$folder/init" con=null con0=fd:0,fd:1 quiet </dev/null 2>&1 | tee "$folder/log"
grep -q "^all were run" "$folder/log"
! grep -q "^failed: " "$folder/log"
