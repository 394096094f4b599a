#!/usr/bin/env bash
# Makes capi/include/hostmem.h of the crate hostmem_c, by cbindgen:
#
#   capi/header.sh [TO]
#
# TO is another file for it.
set -euo pipefail
cd "$(dirname "$0")/.."

to=${1:-capi/include/hostmem.h}
"${CBINDGEN:-cbindgen}" --quiet --config capi/c/cbindgen.toml --crate hostmem_c \
    --output "$to" capi/c
