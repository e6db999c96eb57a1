#!/usr/bin/env bash
# Checks that every tool the build needs is here, and installs the Debian packages of those that are not.
#
#   scripts/setup.sh                       what the build, the demo and the tests need; fails when it can't be had
#   scripts/setup.sh --optional TOOL...    tries to have TOOL (a package of the same name); never fails
set -euo pipefail

# The oldest compiler that the workspace builds with (`rust-version` in Cargo.toml).
readonly RUST_MIN=90

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

have_libclang() {
    # bindgen loads it at build time; any of LIBCLANG_PATH, the linker's cache or llvm's own folders will do.
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* /usr/lib/libclang*.so* \
        >/dev/null 2>&1 && return 0
    ldconfig -p 2>/dev/null | grep -q 'libclang.*\.so'
}

missing_packages() {
    if ! have cc || ! have c++ || ! have make; then echo build-essential; fi
    have cmake || echo cmake
    have clang || echo clang
    have_libclang || echo libclang-dev
    have ld.lld || echo lld
    have pkg-config || echo pkg-config
    have git || echo git
    have openssl || echo openssl
    if ! have python3 || ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then echo python3 python3-venv; fi
    if ! have cargo && ! have curl; then echo curl; fi
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ ! -e /etc/debian_version ] || echo ca-certificates
}

# Runs its words as root: directly, or by sudo where that asks for nothing or somebody can answer.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then sudo "$@"
    else return 1
    fi
}

install_packages() {
    have apt-get || return 1
    # What apt says is worth reading only when it fails.
    local log
    log="$(mktemp)"
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >"$log" 2>&1 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1; then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

if [ "${1:-}" = --optional ]; then
    shift
    wanted=()
    for tool in "$@"; do
        have "$tool" || [ -x "/usr/sbin/$tool" ] || wanted+=("$tool")
    done
    if [ ${#wanted[@]} -gt 0 ] && ! install_packages "${wanted[@]}" >/dev/null 2>&1; then
        say "could not install ${wanted[*]}; going on without"
    fi
    exit 0
fi

mapfile -t packages < <(missing_packages | tr ' ' '\n' | sort -u)
if [ ${#packages[@]} -gt 0 ]; then
    say "installing missing packages: ${packages[*]}"
    if ! install_packages "${packages[@]}"; then
        say "could not install them. The build needs: a C and C++ compiler, make, cmake, clang with libclang, lld,"
        say "pkg-config, git, python3 with venv."
        if have apt-get; then
            say "Run this as root, then try again:  apt-get update && apt-get install -y ${packages[*]}"
        else
            say "This is not a Debian or Ubuntu system: install the equivalents of  ${packages[*]}  and try again."
        fi
        exit 1
    fi
    mapfile -t packages < <(missing_packages | tr ' ' '\n' | sort -u)
    if [ ${#packages[@]} -gt 0 ]; then
        say "installed, but still not found: ${packages[*]}. Check your PATH, then try again."
        exit 1
    fi
fi

if ! have cargo || ! have rustc; then
    say "Rust is missing. Install it with rustup as https://rustup.rs describes (the default choices are right),"
    say "then try again in the same shell."
    exit 1
fi
version="$(rustc --version | awk '{print $2}')"
minor="$(printf '%s' "$version" | cut -d. -f2)"
if [ "${version%%.*}" = 1 ] && [ "$minor" -lt $RUST_MIN ]; then
    say "Rust $version is too old: 1.$RUST_MIN or newer is needed. Run \`rustup update stable\`, then try again."
    exit 1
fi
