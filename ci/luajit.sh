#!/usr/bin/env bash
# LuaJIT, built of Debian's source as it is and with its code and its heap in memory of this project
# (capi/examples/luajit): programs print the same, where code is mapped twice, under MDWE, and where
# it is toggled; and what both take is measured.
#
#   ci/luajit.sh                each program once, the benchmarks in 3 pairs
#   ci/luajit.sh long           with more options, and 15 pairs, which must be as quick as LuaJIT's
#   ci/luajit.sh bench          the benchmarks alone, in 15 pairs
source "$(dirname "$0")/lib.sh"

how=${1:-short}
pairs=3
[ "$how" = short ] || pairs=15
# The most that a benchmark may take of what LuaJIT by itself does.
TARGET=1.02

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    skip "LuaJIT: its two addresses of code are told apart on Linux, x86-64 only"
    exit 0
fi

keep=$(realpath -m "${CARGO_TARGET_DIR:-target}/luajit")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Gets the source by apt, with lists of its own: those of the system may have no sources.
fetch_source() {
    local repository
    command -v apt-get >/dev/null && mkdir -p "$keep" "$work/apt/lists/partial" \
        "$work/apt/archives/partial" || return 1
    # madison's lines: package | version | address suite/component architecture Packages
    repository=$(apt-cache madison luajit | awk -F '|' '/ Packages$/ { print $3; exit }')
    if [ -z "$repository" ] && [ "$(id -u)" = 0 ]; then
        apt-get update -qq || return 1
        repository=$(apt-cache madison luajit | awk -F '|' '/ Packages$/ { print $3; exit }')
    fi
    [ -n "$repository" ] || return 1
    awk '{ split($2, suite, "/"); print "deb-src", $1, suite[1], suite[2] }' <<<"$repository" \
        >"$work/apt/sources.list"
    local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/apt/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/apt/lists"
        -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=root)
    "${apt[@]}" update && (cd "$keep" && "${apt[@]}" source --download-only luajit >/dev/null)
}

have_source() {
    compgen -G "$keep/luajit_*.dsc" >/dev/null || fetch_source
}

step "LuaJIT's source"
if ! have_source; then
    skip "LuaJIT: its source cannot be had by apt-get"
    exit 0
fi
for tool in dpkg-source:dpkg-dev make:make gcc:gcc; do
    command -v ${tool%:*} >/dev/null || install_packages ${tool#*:} || {
        skip "LuaJIT: there is no ${tool%:*}"
        exit 0
    }
done
dsc=$(printf '%s\n' "$keep"/luajit_*.dsc | tail -n 1)
dpkg-source --no-check -x "$dsc" "$work/original" >/dev/null 2>&1
basename "$dsc" .dsc

step "build"
LIBRARIES=hostmem DESTDIR=$work capi/install.sh /usr
cp -r "$work/original" "$work/ours"
capi/examples/luajit/adopt.sh "$work/ours"

build() { # source, what make is told
    local source=$1
    shift
    make -s -C "$source" -j "$(nproc)" BUILDMODE=static CCDEBUG= "$@" >"$source.log" 2>&1 ||
        { tail -n 30 "$source.log"; return 1; }
}
flags="-I$work/usr/include"
library="$work/usr/lib/libhostmem.a -pthread"
# It is built as it is once.
original=$keep/$(basename "$dsc" .dsc)
if [ ! -x "$original" ]; then
    build "$work/original/src"
    cp "$work/original/src/luajit" "$original"
fi
cp "$original" "$work/luajit"
build "$work/ours/src" XCFLAGS="$flags" TARGET_LIBS="$library"
cp "$work/ours/src/luajit" "$work/dual"
touch "$work/ours/src/lj_mcode.c"
build "$work/ours/src" XCFLAGS="$flags -DLJ_HM_MAPPING=HM_MAPPING_TOGGLE" TARGET_LIBS="$library"
cp "$work/ours/src/luajit" "$work/toggle"
gcc -fsyntax-only -O2 -Wall -Wextra -Wno-unused-function -Werror "$flags" \
    "$work/ours/src/lj_mcode.c"

step "where code lies"
cd tests/luajit
said() { # what is expected, command
    local expected=$1 got
    shift
    got=$("$@")
    printf '%s: %s\n' "$(basename "$1")" "$got"
    [ "$got" = "$expected" ]
}
said r-xp "$work/luajit" where.lua
said r-xs "$work/dual" where.lua
said r-xp "$work/toggle" where.lua

step "programs"
programs=(checks/*.lua)
[ "$how" != bench ] || programs=()
modes=("" "-Ohotloop=1 -Ohotexit=1" "-Omaxmcode=64 -Osizemcode=16")
if [ "$how" = long ]; then
    modes+=("-O1" "-O-fuse -O-sink" "-Omaxmcode=32 -Osizemcode=4 -Ohotloop=2"
        "-Omaxtrace=20 -Ohotexit=1" "-Ominstitch=0 -Ohotloop=1")
fi

check() { # name, binary, options and program
    local name=$1 code=0
    shift
    timeout 300 "$@" >"$work/out" 2>&1 </dev/null || code=$?
    if [ $code != 0 ] || ! cmp -s "$work/reference" "$work/out"; then
        printf '%s is not as interpreted (exit code %s): %s\n' "$name" $code "$*" >&2
        diff "$work/reference" "$work/out" | head -n 20 >&2 || true
        return 1
    fi
}

mdwe=()
code=0
"$work/luajit" mdwe.lua where.lua >/dev/null 2>"$work/refused" || code=$?
if [ $code = 77 ]; then
    skip "LuaJIT under MDWE: this kernel has no PR_SET_MDWE"
else
    # LuaJIT by itself does not get through this.
    grep -q "runtime code generation failed" "$work/refused"
    said r-xs "$work/dual" mdwe.lua where.lua
    mdwe=(mdwe.lua)
fi
for program in ${programs[@]+"${programs[@]}"}; do
    timeout 300 "$work/luajit" -joff "$program" >"$work/reference" 2>&1 </dev/null
    for mode in "${modes[@]}"; do
        read -ra options <<<"$mode"
        check LuaJIT "$work/luajit" "${options[@]}" "$program"
        check "mapped twice" "$work/dual" "${options[@]}" ${mdwe[@]+"${mdwe[@]}"} "$program"
        check toggled "$work/toggle" "${options[@]}" "$program"
        [ "$how" != long ] || check "mapped twice" "$work/dual" "${options[@]}" "$program"
    done
    # Where nothing can be compiled, it is interpreted; there are no callbacks then.
    grep -q ffi.cast "$program" ||
        check "toggled under MDWE" "$work/toggle" ${mdwe[@]+"${mdwe[@]}"} "$program"
    printf '%s: %s lines\n' "$program" "$(wc -l <"$work/reference")"
done

step "benchmarks, $pairs pairs: CPU time, medians"
seconds() { # binary, program: its CPU time goes to the variable `took`
    local TIMEFORMAT='%U %S'
    took=$({ time "$1" "$2" >"$work/printed" 2>&1; } 2>&1 | awk '{ print $1 + $2 }')
}
for program in bench/*.lua; do
    name=$(basename "$program" .lua)
    for ((n = 0; n < pairs; n++)); do
        # Each goes first in every other pair.
        if ((n % 2)); then
            seconds "$work/dual" "$program"; ours=$took
            mv "$work/printed" "$work/ours.out"
            seconds "$work/luajit" "$program"; theirs=$took
            mv "$work/printed" "$work/luajit.out"
        else
            seconds "$work/luajit" "$program"; theirs=$took
            mv "$work/printed" "$work/luajit.out"
            seconds "$work/dual" "$program"; ours=$took
            mv "$work/printed" "$work/ours.out"
        fi
        cmp "$work/ours.out" "$work/luajit.out"
        printf '%s %s %s\n' "$name" "$ours" "$theirs"
    done
done >"$work/times"
awk -v target=$TARGET '
    function median(list, count,   i, j, t) {
        for (i = 2; i <= count; i++)
            for (j = i; j > 1 && list[j - 1] > list[j]; j--) {
                t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
            }
        return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
    }
    function row(name, ours, theirs, ratio) {
        printf "row: luajit-%s ours=%s peer=luajit:%s ratio=%.3f target=%s met=%s\n", name, ours,
            theirs, ratio, target, ratio <= target ? "yes" : "no"
    }
    function finish() {
        if (!count) return
        ratio = median(ratios, count)
        row(last, sprintf("%.3fs", median(ours, count)), sprintf("%.3fs", median(theirs, count)),
            ratio)
        sum += log(ratio); rows++; count = 0
    }
    $1 != last { finish(); last = $1 }
    { count++; ours[count] = $2; theirs[count] = $3; ratios[count] = $2 / $3 }
    END { finish(); row("all", "mean", "mean", exp(sum / rows)) }
' "$work/times" | tee "$work/rows"
# A busy machine has other ratios of few pairs.
[ "$how" = short ] || grep -q "^row: luajit-all .* met=yes" "$work/rows"
