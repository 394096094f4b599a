# What the scripts of this folder share. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What is built here is built once.
export CARGO_INCREMENTAL=0

# Says aloud that something was not checked, and why; ci/all.sh says it again at its end. Where
# HOSTMEM_STRICT is 1 it is a failure.
skip() {
    printf '\nSKIPPED: %s\n\n' "$*" >&2
    if [ -n "${HOSTMEM_SKIPS:-}" ]; then
        printf 'SKIPPED: %s\n' "$*" >>"$HOSTMEM_SKIPS"
    fi
    [ "${HOSTMEM_STRICT:-}" != 1 ] || exit 1
}

# Says whether the checks, which began at HOSTMEM_CI_BEGAN, have taken so long that what takes many
# minutes under an emulator is to be left out.
late() {
    [ $(($(date +%s) - ${HOSTMEM_CI_BEGAN:-$(date +%s)})) -gt $((14 * 60)) ]
}

# Makes the tests' skips failures where they can do all that they ask for: by root on Linux. They
# are not where HOSTMEM_STRICT is set to something else.
be_strict() {
    if [ "$(id -u)" = 0 ] && [ "$(uname)" = Linux ]; then
        export HOSTMEM_STRICT=${HOSTMEM_STRICT-1}
    fi
}

# Names what follows, and the time of day, so that a log shows what takes long.
step() {
    printf '\n== %s, at %(%T)T\n' "$*" -1
}

# Installs packages of the system, where that can be done without asking anybody; one script at a
# time.
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
