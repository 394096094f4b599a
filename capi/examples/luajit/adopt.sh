#!/usr/bin/env bash
# Puts LuaJIT's machine code, its callbacks and its heap into memory of hostmem's:
#
#   capi/examples/luajit/adopt.sh SOURCE        # LuaJIT 2.1 for x86-64; SOURCE/src is changed
#   make -C SOURCE XCFLAGS="$(pkg-config --cflags hostmem)" TARGET_XLIBS="-lhostmem -pthread" ...
#
# lj_mcode.c replaces LuaJIT's file of this name; the lines below change others. They keep the two
# addresses of code apart where a range is mapped twice: the assembler has the one where code is
# written, and what stays of a trace is the one where it runs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$1/src"

# Changes lines of a file, each command at least one of them.
change() { # file, sed commands
    local file=$1 command
    shift
    for command in "$@"; do
        sed -E "$command" "$file" >"$file.new"
        if cmp -s "$file" "$file.new"; then
            printf '%s is not as expected: no line for %s\n' "$file" "$command" >&2
            exit 1
        fi
        mv "$file.new" "$file"
    done
}

cp "$here/lj_mcode.c" "$here/lj_hostmem.h" .

# A state has two ranges: one for traces, one for callbacks.
change lj_jit.h \
    's/^#include "lj_obj.h"/&\n#include "lj_hostmem.h"/' \
    's/^ *size_t szallmcarea;.*/&\n  HMRange hm, hmcallback;/'

# Relative jumps and calls, and data that is addressed relative to code.
change lj_emit_x86.h \
    '/ jmprel\(jit_State/,/^}/s/= target - p;/= mcode_rx(J, target) - mcode_rx(J, p);/' \
    '/ emit_call_\(/,/^}/s/target-p/target-mcode_rx(as->J, p)/g' \
    's/\(uintptr_t\)as->(mcp|mctop)\)\)/(uintptr_t)mcode_rx(as->J, as->\1)))/' \
    's/mcpofs\(as, (as->mctop - ir->i)\)/mcpofs(as, mcode_rx(as->J, \1))/'
patch='/^void lj_asm_patchexit/,/^}/'
change lj_asm_x86.h \
    's/mcpofs\(as, (as->mctop - ir->i)\)/mcpofs(as, mcode_rx(as->J, \1))/' \
    's/p - as->mcp\b/p - mcode_rx(as->J, as->mcp)/g' \
    's/= (asm_exitstub_gen\(as, i\));/= mcode_rx(as->J, \1);/' \
    "${patch}"'s/\*\)\((p\+[^)]*)\) = jmprel/*)mcode_rw(J, \1) = jmprel/'
change lj_asm.c 's/T->mcode = as->mcp;/T->mcode = mcode_rx(as->J, as->mcp);/'

# A state that is closed gives its range back.
change lj_trace.c '/^void lj_trace_freestate/,/^}/s/lj_mcode_free\(J\)/lj_mcode_close(J)/'

# Callbacks.
new='/^static void callback_mcode_new/,/^}/'
free='/^void lj_ccallback_mcode_free/,/^}/'
range='\&G2J(cts->g)->hmcallback'
fails='lj_err_caller(cts->L, LJ_ERR_FFI_CBACKOV)'
change lj_ccallback.c \
    "${new}s/p = mmap\(.*/p = lj_hm_begin($range, sz);/" \
    "${new}{/^\t +-1, 0\);/d;s/p == MAP_FAILED/p == NULL/}" \
    "${new}s/mprotect\(.*/if (!(cts->cb.mcode = lj_hm_end($range)))\n    $fails;/" \
    "${free}s/munmap\(.*/UNUSED(sz); lj_hm_free($range);/" \
    's/^#include "lj_mcode.h"/&\n#include "lj_jit.h"/'

# The heap.
change lib_aux.c \
    's/lua_newstate\(LJ_ALLOCF_INTERNAL, NULL\)/lj_hm_newstate()/' \
    's/^#include "lj_lib.h"/&\n#include "lj_hostmem.h"/'
