#!/usr/bin/env bash
# Other systems and other CPUs, as far as they can be had from here. Each part installs what it
# needs, and says aloud what it had to skip. On a BSD machine itself: ci/bsd-native.sh.
source "$(dirname "$0")/lib.sh"

for script in targets bsd-link aarch64 freestanding; do
    step "ci/$script.sh"
    "ci/$script.sh"
done
