# What the scripts of this folder share. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Says aloud that something was not checked, and why.
skip() {
    printf '\nSKIPPED: %s\n\n' "$*" >&2
}

step() {
    printf '\n== %s\n' "$*"
}
