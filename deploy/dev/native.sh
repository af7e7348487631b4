# shellcheck shell=bash
# Checks which required programs and libraries this system has, and installs the rest. Sourced by environment.sh.
# Groups are those of deploy/packages.sh: build, check, parity, valgrind, clang, qemu, containers.

PACKAGES=$ROOT/deploy/packages.sh

packages() { sh "$PACKAGES" "$@"; }

# Debian and others install nng's CMake package, which has the version, but no .pc file.
native_has_nng() {
    local file version
    [[ ! -f ${COPPICE_NNG_SOURCE:-}/CMakeLists.txt ]] || return 0
    for file in "${nng_DIR:-/nowhere}" /usr/local/lib*/cmake/nng /usr/local/lib/*/cmake/nng \
        /usr/lib*/cmake/nng /usr/lib/*/cmake/nng; do
        file=$file/nng-config-version.cmake
        [[ -f $file ]] || continue
        version=$(sed -n 's/^set(PACKAGE_VERSION "\([0-9.]*\)").*/\1/p' "$file" | head -n 1)
        [[ $version == 1.* ]] && printf '1.10\n%s\n' "$version" | sort -CV && return 0
    done
    return 1
}

lacks_programs() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null || printf '%s\n' "$name"
    done
}

lacks_modules() {
    command -v python3 >/dev/null || return 0 # lacks_programs names python3
    python3 -c 'import importlib.util, sys
for name in sys.argv[1:]:
    if importlib.util.find_spec(name) is None:
        print("Python\x27s", name)' "$@"
}

lacks_libraries() {
    local library
    pkg-config --exists "$@" 2>/dev/null && return 0
    for library in "$@"; do
        pkg-config --exists "$library" 2>/dev/null || printf '%s\n' "$library"
    done
}

# lacks GROUP...: prints what is missing for these groups, one per line.
lacks() {
    local group
    for group in "$@"; do
        case $group in
            build)
                lacks_programs cc cmake ninja pkg-config protoc-c git
                lacks_libraries 'libuv >= 1.44' 'libprotobuf-c >= 1.4' openblas sqlite3 yaml-0.1 \
                    libxxhash libsodium zlib cairo 'libpng >= 1.6' libjpeg 'openssl >= 3.0'
                native_has_nng || echo "nng >= 1.10"
                ;;
            check)
                lacks_programs python3 strace sqlite3 openssl ctags ip
                lacks_modules pytest xdist numpy safetensors PIL yaml
                lacks_cmocka
                ;;
            parity) lacks_modules torch onnx onnxruntime ;;
            valgrind) lacks_programs valgrind ;;
            clang)
                lacks_programs clang clang-format clang-tidy shellcheck
                lacks_clang_format
                ;;
            qemu)
                lacks_programs qemu-aarch64 aarch64-linux-gnu-gcc
                [[ -e /usr/lib/aarch64-linux-gnu/libcmocka.so ]] || echo "arm64 libraries"
                ;;
            containers)
                lacks_programs docker docker-compose kustomize systemd-analyze
                lacks_modules jsonschema
                ;;
        esac
    done
}

lacks_cmocka() { [[ -f /usr/include/cmocka.h || -f /usr/local/include/cmocka.h ]] || echo cmocka; }

# Other versions of clang-format format the sources differently.
lacks_clang_format() {
    ! command -v clang-format >/dev/null || [[ $(clang-format --version) == *" 19."* ]] || echo "clang-format 19"
}

native_has() {
    local group
    for group in "$@"; do
        [[ -z $(lacks "$group") ]] || return 1
    done
}

# native_can_have: succeeds on releases of Debian and Ubuntu that have all libraries in recent enough versions.
native_can_have() {
    command -v apt-get >/dev/null && packages list build | grep -qx libnng-dev
}

# native_install GROUP...: installs the missing packages; needs root.
native_install() {
    local log=${TMPDIR:-/tmp}/coppice-apt.log missing
    missing=$(packages missing "$@" | xargs)
    if [[ -n $missing ]]; then
        note "installing with apt-get (log: $log), because a build or test needs them: $missing"
        packages install "$@" >"$log" 2>&1 || {
            tail -n 5 "$log" >&2
            note "apt-get failed: see $log"
        }
        hash -r
    fi
}

# native_advice GROUP...: prints the command to type if ./dev cannot install anything itself.
native_advice() {
    local sudo="" missing
    [[ $EUID == 0 ]] || sudo="sudo "
    if native_can_have; then
        printf '%sapt-get install %s' "$sudo" "$(packages missing "$@" | xargs)"
    elif command -v apt-get >/dev/null; then
        printf '%sapt-get install podman' "$sudo"
    else
        missing=$(lacks "$@")
        printf 'install a container engine, or: %s' "${missing//$'\n'/, }"
    fi
}
