#!/usr/bin/env bash
# Programs of Debian's for AArch64 on the malloc, under qemu-user: each must print what it does on the C
# library's malloc, in the modes of ci/preload.sh. Minutes, as an emulator runs them.
source "$(dirname "$0")/lib.sh"
source ci/lib-aarch64.sh

aarch64_tools || exit 0
if [ "$aarch64_cargo" != cargo ]; then
    export CARGO=$aarch64_cargo
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc LC_ALL=C
unset LD_PRELOAD HOSTMEM_LOW4G HOSTMEM_HARDEN HOSTMEM_STATS HOSTMEM_PURGE_MS HOSTMEM_PASS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step "the malloc for AArch64"
DESTDIR=$work/ours LIBRARIES=hostmem_malloc TARGET=$aarch64 CROSS=aarch64-linux-gnu- capi/install.sh /usr
override=$work/ours/usr/lib/libhostmem_malloc.so.0

step "programs for AArch64"
packages=(libc6 libgcc-s1 zlib1g python3-minimal python3.{9..14}-minimal libpython3.{9..14}-minimal libpython3.{9..14}-stdlib
    libexpat1 git libpcre2-8-0 sqlite3 libsqlite3-0 libreadline8 libtinfo6)
root=$work/root
fetch() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    dpkg --add-architecture arm64 && apt-get update -qq || return 1
    mkdir "$work/packages"
    local there
    # Not every system has each of them.
    mapfile -t there < <(apt-cache show --no-all-versions "${packages[@]/%/:arm64}" 2>/dev/null |
        sed -n 's/^Package: //p' | sort -u)
    (cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root "${there[@]/%/:arm64}" >/dev/null) || return 1
    local package
    for package in "$work"/packages/*.deb; do
        dpkg -x "$package" "$root" || return 1
    done
}
if ! fetch; then
    skip "AArch64: packages for it cannot be had; ci/capi.sh runs this project's own programs for it"
    exit 0
fi

# Where a system has /lib as a link, packages still have files in it.
emulate() { # variables... -- program arguments...
    local set=()
    while [ "$1" != -- ]; do
        set+=(-E "$1")
        shift
    done
    shift
    timeout 1200 qemu-aarch64 -L "$root" "${set[@]}" "$@"
}

# One process each: a process that it started would not run under the emulator.
program_python() {
    cat >main.py <<'END'
import hashlib, json, re, threading, zlib
data = {str(n): [n * k for k in range(n % 50)] for n in range(2000)}
text = json.dumps(data)
assert json.loads(text) == data
print(len(text), hashlib.md5(text.encode()).hexdigest())
packed = zlib.compress(text.encode())
assert zlib.decompress(packed) == text.encode()
print(len(packed), len(re.findall(r"\d\d", text)))
results = []
def run(n):
    results.append(len(json.dumps([bytearray(k * 10).hex() for k in range(n)])))
threads = [threading.Thread(target=run, args=(n,)) for n in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(results)[-3:])
grown = bytearray()
for n in range(20000): grown += b"x" * (n % 100)
print(len(grown))
END
    emulate PYTHONMALLOC=malloc "PYTHONHOME=$root/usr" "$@" -- "$(compgen -G "$root/usr/bin/python3.[0-9]*" | head -n 1)" main.py
}

program_git() {
    local git=$root/usr/bin/git
    set -- "HOME=$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat "$@" -- "$git"
    emulate "$@" init -q --template= repository
    for n in {1..40}; do
        printf 'commit refs/heads/main\ncommitter someone <someone@example.org> %d +0000\n' $((1700000000 + n))
        printf 'data 8\nchange \nM 100644 inline file%d\n' $((n % 7))
        text=$(seq $((n * 50)))
        printf 'data %d\n%s\n\n' ${#text} "$text"
    done >stream
    emulate "$@" -C repository fast-import --quiet <stream
    emulate "$@" -C repository fsck --full --strict --no-progress
    emulate "$@" -C repository log --stat --no-color main | md5sum
    emulate "$@" -C repository rev-list --objects --all |
        emulate "$@" -C repository pack-objects -q --threads=2 ../pack
}

program_sqlite() {
    cat >main.sql <<'END'
CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, number REAL);
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000)
  INSERT INTO t SELECT x, printf('word %d', x * 7919 % 10007), x * 1.5 FROM n;
CREATE INDEX words ON t (word, number);
UPDATE t SET word = word || word WHERE id % 3 = 0;
DELETE FROM t WHERE id % 7 = 0;
SELECT count(*), sum(number), max(length(word)) FROM t;
VACUUM;
PRAGMA integrity_check;
END
    emulate "$@" -- "$root/usr/bin/sqlite3" test.db <main.sql
}

failed=()
for program in python git sqlite; do
    for mode in libc anywhere low hardened; do
        variables=()
        [ $mode = libc ] || variables=("LD_PRELOAD=$override")
        [ $mode != low ] || variables+=(HOSTMEM_LOW4G=1)
        [ $mode != hardened ] || variables+=(HOSTMEM_HARDEN=2)
        mkdir "$work/$program.$mode"
        code=0
        (set -e; cd "$work/$program.$mode"; "program_$program" "${variables[@]}") \
            >"$work/$program.$mode.out" 2>"$work/$program.$mode.err" || code=$?
        echo "exit code $code" >>"$work/$program.$mode.out"
        if [ $mode = libc ]; then
            grep -qx 'exit code 0' "$work/$program.libc.out" || {
                tail -n 5 "$work/$program.libc.err" >&2
                skip "AArch64: $program fails on the C library's malloc, too"
            }
        elif ! diff -u "$work/$program.libc.out" "$work/$program.$mode.out"; then
            failed+=("$program ($mode)")
            tail -n 20 "$work/$program.$mode.err" >&2
        fi
        printf '%-8s %s\n' $program $mode
    done
done
if [ ${#failed[@]} != 0 ]; then
    printf 'not as on the C library: %s\n' "${failed[*]}" >&2
    exit 1
fi
