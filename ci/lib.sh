# What the scripts of this folder share. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What is built here is built once.
export CARGO_INCREMENTAL=0

# Says aloud that something was not checked, and why.
skip() {
    printf '\nSKIPPED: %s\n\n' "$*" >&2
}

# Says whether the checks, which began at HOSTMEM_CI_BEGAN, have taken so long that what takes minutes is
# to be left out: all of them together have 25.
late() {
    [ $(($(date +%s) - ${HOSTMEM_CI_BEGAN:-$(date +%s)})) -gt $((14 * 60)) ]
}

# Names what follows, and the time of day, so that a log shows what takes long.
step() {
    printf '\n== %s, at %(%T)T\n' "$*" -1
}

# Installs packages of the system, where that can be done without asking anybody; one script at a time.
install_packages() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    (
        flock 9
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$@" >/dev/null
    ) 9>"${TMPDIR:-/tmp}/hostmem-packages.lock"
}

# Says whether the toolchain in use has its library for a target, and fetches it if it can.
has_library() { # target
    rustup target add "$1" >/dev/null 2>&1 || true
    compgen -G "$("${RUSTC:-rustc}" --print target-libdir --target "$1")/libcore-*.rlib" >/dev/null
}
