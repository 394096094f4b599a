#!/usr/bin/env bash
# Holds the headers to what programs were built with: compares them with the interface described in
# capi/abi, which belongs to the shared libraries' number in capi/soname.
#
#   capi/abi.sh            fails where a call went, or its types, a struct or a constant changed
#   capi/abi.sh --update   describes the interface as it is: after calls were added, or with another
#                          number in capi/soname
#
# Of a header is made a library whose calls do nothing, in C with debug information, so that abidw
# (Debian: abigail-tools) sees the types that programs see. That the calls of the header are those
# of the library the tests of hostmem_c check. Structs that begin with their size may grow at their
# end. INCLUDE is another folder of headers.
set -euo pipefail
cd "$(dirname "$0")/.."

soname=$(<capi/soname)
include=$(realpath "${INCLUDE:-capi/include}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Makes a library of a header, with a body for each call that is declared.
make_library() { # name
    {
        printf '#include "%s.h"\n' "$1"
        "${CC:-cc}" -E -P -x c "$include/$1.h" | tr '\n' ' ' | tr ';' '\n' |
            grep -v '^ *typedef' |
            grep -oE '[a-z_0-9 *]+\b(hm|hostmem)_[a-z0-9_]+\([^{]*\) *$' |
            sed 's/$/ { __builtin_trap(); }/'
    } >"$work/$1.c"
    # There, so that no path is in what it says.
    (cd "$work" && "${CC:-cc}" -g -w -fPIC -shared -nostdlib -fno-eliminate-unused-debug-types \
        -I "$include" "-Wl,-soname=lib$1.so.$soname" -o "lib$1.so" "$1.c")
}

# Lists constants, whose values are in programs: enumerators and numbers.
list_constants() { # header
    grep -oE '^ *HM_[A-Z0-9_]+ = [0-9]+|^#define HM_[A-Z0-9_]+ \(?[-0-9].*' "$1" |
        sed -E 's/^ *//; s/^#define ([A-Z0-9_]+) /\1 = /' | grep -v '^HM_VERSION ' | LC_ALL=C sort
}

failed=0
for name in hostmem hostmem_malloc; do
    make_library "$name"
    described=capi/abi/lib$name.so.$soname
    if [ "${1:-}" = --update ]; then
        abidw --no-corpus-path --no-comp-dir-path --no-show-locs --out-file "$described.abi" \
            "$work/lib$name.so"
        list_constants "$include/$name.h" >"$described.constants" || rm "$described.constants"
        continue
    fi
    if [ ! -e "$described.abi" ]; then
        printf '%s.abi is not there: capi/abi.sh --update makes it\n' "$described" >&2
        failed=1
        continue
    fi
    for struct in $(grep -oE 'HM_SIZED\(hm_[a-z_]+' "$include/$name.h" | sed 's/.*(//' | sort -u); do
        printf '[suppress_type]\ntype_kind = struct\nname = %s\n' "$struct"
        printf 'has_data_member_inserted_at = end\n\n'
    done >"$work/grow.ini"
    abidiff --no-added-syms --suppressions "$work/grow.ini" "$described.abi" \
        "$work/lib$name.so" || failed=1
    if [ -e "$described.constants" ]; then
        list_constants "$include/$name.h" >"$work/constants"
        gone=$(LC_ALL=C comm -23 "$described.constants" "$work/constants")
        if [ -n "$gone" ]; then
            printf 'constants of %s that went or have another value:\n%s\n' "$name" "$gone" >&2
            failed=1
        fi
    fi
done
if [ $failed != 0 ]; then
    printf 'programs that were built with lib*.so.%s no longer run with these: %s %s\n' "$soname" \
        'keep what they use, or raise the number in capi/soname' 'and run capi/abi.sh --update' >&2
    exit 1
fi
