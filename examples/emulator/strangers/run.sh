#!/usr/bin/env bash
# Builds programs that others wrote, for the guest and for the host, runs both on the same input, and
# compares what they print. Sources are Debian's, the compiler for the guest is Zig of PyPI, and what
# is built stays in a folder, by default in the one for temporary files.
#
#   run.sh [FOLDER]
#
# Ends with 77 where sources or the compiler cannot be had, and with 1 where something differs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-${TMPDIR:-/tmp}/hostmem-strangers}
mkdir -p "$work/lists/partial" "$work/built"

step() {
    printf '\n== %s\n' "$*"
}

# Ends where what is needed cannot be had.
unavailable() {
    printf '%s cannot be had\n' "$1" >&2
    exit 77
}

step "the emulator"
(cd "$here/../../.." && cargo build --quiet --release -p hostmem-emulator --example emulator)
target=${CARGO_TARGET_DIR:-$here/../../../target}
emulator=$(realpath "$target/release/examples/emulator")
cd "$work"

step "the compiler"
if ! python3 -m ziglang version 2>/dev/null; then
    [ -e python ] || python3 -m venv python || unavailable "a Python environment"
    python/bin/python -m ziglang version 2>/dev/null || python/bin/pip install --quiet ziglang ||
        unavailable "Zig's compiler"
    PATH=$work/python/bin:$PATH
fi

# Sources as Debian has them, by lists of their own, so that nothing of the system changes.
step "sources"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
suite=${SUITE:-bookworm}
printf 'deb-src [signed-by=%s] http://deb.debian.org/debian %s main\n' "$keys" "$suite" >sources.list
command -v apt-get >/dev/null && [ -e "$keys" ] || unavailable "Debian's sources"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::State::Lists=$work/lists")
"${apt[@]}" update || unavailable "Debian's list of sources"

# Unpacks a source package as its authors made it; sets $source to its folder.
unpack() { # package
    source=$work/$1
    [ -e "$source" ] && return
    mkdir -p "$source.files" "$source.new"
    (cd "$source.files" && "${apt[@]}" source --download-only "$1" 2>/dev/null) ||
        unavailable "the source of $1"
    tar -x --strip-components=1 -C "$source.new" \
        -f "$(find "$source.files" -name '*.orig.tar.*' ! -name '*.asc')"
    mv "$source.new" "$source"
}

# Compiles for the guest and the host.
build() { # name, arguments of the compiler
    local name=$1
    shift
    [ -e "built/$name.host" ] && return
    python3 -m ziglang cc -target riscv32-linux-musl -mcpu=generic_rv32+m+a+c -O2 -w -static -s \
        -o "built/$name.elf" "$@"
    cc -O2 -w -o "built/$name.host" "$@"
}

failed=0
# Runs a program on the host and on the emulator, each in an empty folder, and compares their
# outputs and what they leave in the folder. Standard input is $input.
compare() { # name, arguments
    local name=$1 began
    shift
    rm -rf on-host on-guest
    mkdir on-host on-guest
    (cd on-host && "../built/$name.host" "$@" <"$input" >output)
    began=$(date +%s%N)
    # What is different by nature is not compared: times.
    (cd on-guest && "$emulator" "../built/$name.elf" "$@" <"$input" >output)
    printf '%s %s: %d ms' "$name" "$*" $((($(date +%s%N) - began) / 1000000))
    sed -i -E 's/ +[0-9.]+s$//' on-host/output on-guest/output
    if diff -r on-host on-guest; then
        printf ', the same\n'
    else
        printf ', DIFFERENT\n'
        failed=1
    fi
}

input=$work/input
[ -e "$input" ] || seq 1 300000 >"$input"

unpack lua5.4
step "Lua"
build lua -DLUA_USE_POSIX $(find "$source/src" -name '*.c' ! -name luac.c) -lm
input=$here/test.lua compare lua -

unpack zlib
step "minigzip"
build minigzip -DHAVE_UNISTD_H -I"$source" "$source/test/minigzip.c" "$source"/*.c
compare minigzip
cp on-host/output packed
input=$work/packed compare minigzip -d

unpack bzip2
step "bzip2"
build bzip2 "$source"/{bzip2,blocksort,huffman,crctable,randtable,compress,decompress,bzlib}.c
compare bzip2 -c
cp on-host/output packed
input=$work/packed compare bzip2 -dc

unpack libzstd
step "zstd, with threads"
build zstd -DZSTD_MULTITHREAD -DZSTD_DISABLE_ASM -DZSTD_LEGACY_SUPPORT=0 -I"$source/lib" \
    "$source"/lib/{common,compress,decompress,dictBuilder}/*.c "$source"/programs/*.c -pthread
compare zstd -q -T4 -B100KB -9 -c
cp on-host/output packed
input=$work/packed compare zstd -q -dc

unpack duktape
step "Duktape"
build duktape -I"$source/src" -I"$source/extras/print-alert" -DDUK_CMDLINE_PRINTALERT_SUPPORT \
    "$source"/{src/duktape,examples/cmdline/duk_cmdline,extras/print-alert/duk_print_alert}.c -lm
input=$here/test.js compare duktape --run-stdin

unpack sqlite3
step "SQLite"
[ -e "$source/sqlite3.c" ] || (cd "$source" && ./configure -q && make -s sqlite3.c shell.c) >sqlite.log 2>&1
build sqlite3 -DSQLITE_OMIT_LOAD_EXTENSION -I"$source" "$source"/{shell,sqlite3}.c -lm -pthread
build speedtest1 -DSQLITE_OMIT_LOAD_EXTENSION -I"$source" "$source/test/speedtest1.c" \
    "$source/sqlite3.c" -lm -pthread
input=$here/test.sql compare sqlite3 t.db
input=$here/test.sql compare sqlite3 :memory:
compare speedtest1 --verify --size 5 t.db
compare speedtest1 --verify --size 5 --journal wal t.db
compare speedtest1 --verify --size 5 --multithread --memdb

exit "$failed"
