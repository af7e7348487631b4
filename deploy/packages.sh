#!/bin/sh
# The packages that Coppice needs on Debian and Ubuntu, in groups:
#   run         running the programs
#   build       building: compiler and libraries
#   check       most tests (with build)
#   parity      tests against PyTorch and ONNX Runtime
#   valgrind    tests for leaks, and gdb
#   clang       the clang and fuzz builds, format and lint
#   qemu        the arm64 build, and its tests in an emulator
#   containers  tests of the files in deploy/
# Usage: packages.sh list GROUP...      prints the package names on this system, one per line
#        packages.sh missing GROUP...   prints only the packages that are not installed
#        packages.sh install GROUP...   installs the missing ones with apt-get, without changing
#                                       apt's sources
# Called by ./dev, deploy/Dockerfile and deploy/dev/Dockerfile.
set -eu

# Debian testing has no version number; it counts as later than any.
# shellcheck source=/dev/null
ID=$(. "${OS_RELEASE:-/etc/os-release}" && echo "${ID:-}")
# shellcheck source=/dev/null
VERSION=$(. "${OS_RELEASE:-/etc/os-release}" && echo "${VERSION_ID:-99}")

# since DEBIAN UBUNTU: succeeds if this system is that version of Debian or Ubuntu, or later.
since() {
    oldest=$1
    if [ "$ID" = ubuntu ]; then oldest=$2; fi
    [ "$(printf '%s\n%s\n' "$oldest" "$VERSION" | sort -V | head -n 1)" = "$oldest" ]
}

# by_system DEBIAN UBUNTU: prints the name for this system.
by_system() {
    if [ "$ID" = ubuntu ]; then echo "$2"; else echo "$1"; fi
}

libraries() {
    echo libuv1-dev libprotobuf-c-dev libopenblas-pthread-dev libsqlite3-dev libyaml-dev \
        libxxhash-dev libsodium-dev zlib1g-dev libcairo2-dev libpng-dev libssl-dev libmicrohttpd-dev
    by_system libjpeg62-turbo-dev libjpeg-turbo8-dev
    # An older nng does not work: COPPICE_NNG_SOURCE (CMakeLists.txt) builds nng from source.
    if since 13 25.04; then echo libnng-dev; fi
}

names() {
    case $1 in
        run)
            echo libprotobuf-c1 libopenblas0-pthread libsqlite3-0 libyaml-0-2 libxxhash0 \
                libsodium23 zlib1g libcairo2 ca-certificates
            by_system libjpeg62-turbo libjpeg-turbo8
            if since 13 24.04; then
                echo libuv1t64 libpng16-16t64 libcurl4t64 libssl3t64 libmicrohttpd12t64
            else
                echo libuv1 libpng16-16 libcurl4 libssl3 libmicrohttpd12
            fi
            if since 13 25.04; then echo libnng1; fi
            ;;
        build)
            echo gcc libc6-dev make cmake ninja-build pkg-config git ca-certificates \
                protobuf-c-compiler protobuf-compiler libcurl4-openssl-dev
            libraries
            ;;
        check)
            echo libcmocka-dev python3 python3-pytest python3-pytest-xdist python3-numpy \
                python3-pil python3-yaml strace sqlite3 procps openssl iproute2 universal-ctags \
                bash-completion python3-prometheus-client
            if since 13 24.10; then echo python3-safetensors; fi
            ;;
        parity)
            echo python3-torch python3-onnx
            if since 13 25.04; then echo python3-onnxruntime; fi
            ;;
        valgrind) echo valgrind gdb ;;
        clang) echo clang clang-format clang-tidy libclang-rt-dev llvm shellcheck ;;
        qemu)
            echo qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
            # Ubuntu keeps the arm64 packages in another archive.
            [ "$ID" = ubuntu ] || for name in $(libraries) libcmocka-dev; do echo "$name:arm64"; done
            ;;
        containers)
            echo systemd python3-jsonschema
            if [ "$ID" != ubuntu ] && ! since 13 0; then
                echo docker.io docker-compose
            else
                by_system "docker-cli docker-compose kustomize" "docker.io docker-compose-v2"
            fi
            ;;
        *)
            echo "packages.sh: no group \"$1\"" >&2
            exit 2
            ;;
    esac
}

list() {
    all=$(for group; do names "$group"; done) # a pipe would hide the exit status
    echo "$all" | tr ' ' '\n' | sort -u
}

missing() {
    all=$(list "$@")
    echo "$all" | while read -r name; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

install() {
    packages=$(missing "$@")
    [ -n "$packages" ] || return 0
    case $packages in *:arm64*) dpkg --add-architecture arm64 ;; esac
    apt-get update -qq || echo "packages.sh: apt-get update failed; using the existing package lists" >&2
    # shellcheck disable=SC2086 # split the list into words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
}

what=${1:-}
case $what in
    list | missing | install)
        shift
        "$what" "$@"
        ;;
    *)
        echo "usage: packages.sh list|missing|install GROUP..." >&2
        exit 2
        ;;
esac
