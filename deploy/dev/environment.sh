# shellcheck shell=bash
# The build environment: this system where it has what is needed, else a Debian 13 container.
# Sourced by ./dev, which sets ROOT and calls, in this order, environment_choose and inside.
#
# Every step that changes the machine says in one line on stderr what it does and why. Images are
# named by a hash of what makes them, so that looking for one is all a second run has to do.
# COPPICE_BASE_IMAGE and COPPICE_IMAGE_PREFIX put other names in place of those below.

BASE_IMAGE=${COPPICE_BASE_IMAGE:-debian:trixie-slim}
IMAGE_PREFIX=${COPPICE_IMAGE_PREFIX:-coppice-dev}
DOCKERFILE=$ROOT/deploy/dev/Dockerfile
ENGINE_SOCKET=/var/run/docker.sock

note() { printf 'dev: %s\n' "$*" >&2; }
die() {
    printf 'dev: %s\n' "$*" >&2
    exit 1
}

# --- native ------------------------------------------------------------------------------------

# Debian and others install CMake's package of nng, but no .pc file: its version stands there.
native_has_nng() {
    local file version
    for file in "${nng_DIR:-/nowhere}" /usr/local/lib*/cmake/nng /usr/local/lib/*/cmake/nng \
        /usr/lib*/cmake/nng /usr/lib/*/cmake/nng; do
        file=$file/nng-config-version.cmake
        [[ -f $file ]] || continue
        version=$(sed -n 's/^set(PACKAGE_VERSION "\([0-9.]*\)").*/\1/p' "$file" | head -n 1)
        [[ $version == 1.* ]] && printf '1.10\n%s\n' "$version" | sort -CV && return 0
    done
    return 1
}

# native_has STAGE: can this system build (and test)?
native_has() {
    local tools=(cc cmake ninja pkg-config protoc-c git) tool
    [[ $1 == test ]] && tools+=(clang clang-format clang-tidy python3 valgrind shellcheck ctags
        qemu-aarch64 aarch64-linux-gnu-gcc docker docker-compose kustomize openssl ip systemd-analyze)
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null || return 1
    done
    native_has_nng && pkg-config --exists 'libuv >= 1.44' 'libprotobuf-c >= 1.4' openblas sqlite3 \
        yaml-0.1 libxxhash libsodium zlib cairo 'libpng >= 1.6' libjpeg 'openssl >= 3.0' || return 1
    [[ $1 == build ]] || {
        [[ -f /usr/include/cmocka.h || -f /usr/local/include/cmocka.h ]] \
            && [[ -e /usr/lib/aarch64-linux-gnu/libcmocka.so ]] \
            && [[ $(clang-format --version) == *" 19."* ]] \
            && python3 -c 'import PIL, jsonschema, numpy, onnx, onnxruntime, pytest, safetensors, torch, xdist, yaml' 2>/dev/null
    }
}

# --- container engine --------------------------------------------------------------------------

# Sets ENGINE to the engine that answers: docker, else podman.
engine_answers() {
    for ENGINE in docker podman; do
        command -v "$ENGINE" >/dev/null && "$ENGINE" info >/dev/null 2>&1 && return 0
    done
    ENGINE=docker
    return 1
}

# The daemon is started directly: the init script fails where it may not raise `ulimit`. One ./dev
# at a time does so, the others wait for it.
engine_start() {
    local log=${TMPDIR:-/tmp}/coppice-dockerd.log pid_file=/var/run/docker.pid arguments lock i
    [[ -d /sys/fs/cgroup ]] || note "this machine shows no cgroups: containers may not start"
    exec {lock}>"${TMPDIR:-/tmp}/coppice-dockerd.lock"
    flock "$lock"
    for arguments in "" "--iptables=false --ip6tables=false --bridge=none"; do
        engine_answers && break
        # After a restart of the machine the number may be that of some other process.
        if [[ -f $pid_file && $(cat "/proc/$(<"$pid_file")/comm" 2>/dev/null) != dockerd ]]; then
            note "removing $pid_file: its process is gone"
            rm -f "$pid_file"
        fi
        note "starting dockerd${arguments:+ $arguments}: no container engine answers (log: $log)"
        # shellcheck disable=SC2086 # arguments is a list of words
        setsid dockerd $arguments </dev/null >>"$log" 2>&1 {lock}>&- &
        for ((i = 0; i < 150; i++)); do
            engine_answers && break 2
            kill -0 $! 2>/dev/null || break
            sleep 0.2
        done
    done
    exec {lock}>&-
    engine_answers
}

engine_install() {
    local packages=(docker.io debootstrap ca-certificates)
    note "installing ${packages[*]}: there is no container engine here, nor what a native build needs"
    apt-get update -qq >&2 || note "apt-get update failed; trying with the package lists that are here"
    # From Debian 13 on, the client is a package of its own.
    apt-cache show docker-cli >/dev/null 2>&1 && packages+=(docker-cli)
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
        >"${TMPDIR:-/tmp}/coppice-apt.log" 2>&1 \
        || note "apt-get complained (${TMPDIR:-/tmp}/coppice-apt.log)"
    hash -r
}

engine_ensure() {
    local help="install a container engine (Debian: docker.io) and start it, or what \
deploy/dev/Dockerfile lists (nng >= 1.10 and others), and try again"
    engine_answers && return 0
    [[ $EUID == 0 ]] || die "no container engine answers and this user cannot start one: $help."
    if ! command -v dockerd >/dev/null; then
        command -v apt-get >/dev/null || die "no container engine, and no apt-get to get one: $help."
        engine_install
        command -v dockerd >/dev/null || die "a container engine could not be installed: $help."
    fi
    engine_answers || engine_start || die "dockerd does not start here: $help."
}

# --- images ------------------------------------------------------------------------------------

# URIs of this machine's Debian sources: "URI SUITE COMPONENTS" a line, from both formats of apt.
apt_sources() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -f $file ]] && sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?//p' "$file"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [[ -f $file ]] && awk '
            function flush() { if (types ~ /(^| )deb( |$)/ && !off) print uri, suite, components
                               types = uri = suite = components = ""; off = 0 }
            /^[[:space:]]*$/ { flush(); next }
            /^#/ { next }
            { key = tolower($1) }
            key == "types:" { $1 = ""; types = $0 }
            key == "uris:" { uri = $2 }
            key == "suites:" { suite = $2 }
            key == "components:" { $1 = ""; components = $0 }
            key == "enabled:" { off = tolower($2) == "no" }
            END { flush() }' "$file"
    done
    return 0
}

# The Debian archive that this machine uses; nothing where it uses none. Third parties have a
# "main" too: an archive whose path ends in "debian" goes first.
apt_mirror() {
    apt_sources | awk '$1 ~ /^https?:/ && $1 !~ /security/ && $2 ~ /^[a-z]+(-updates)?$/ &&
        / main( |$)/ { if ($1 ~ /\/debian\/?$/) { print $1; exit } }'
}

apt_proxy() {
    local proxy=${http_proxy:-}
    command -v apt-config >/dev/null && eval "$(apt-config shell proxy Acquire::http::Proxy)"
    printf '%s' "$proxy"
}

base_pull() {
    note "pulling $BASE_IMAGE: what the build image stands on"
    timeout 20 "$ENGINE" pull -q "$BASE_IMAGE" >/dev/null 2>&1
}

base_bootstrap() {
    local mirror=$1 folder keyring=/usr/share/keyrings/debian-archive-keyring.gpg status=0
    [[ $EUID == 0 && -n $mirror ]] || return 1
    if ! command -v debootstrap >/dev/null; then
        note "installing debootstrap: $BASE_IMAGE cannot be pulled, so it is made here"
        apt-get update -qq >&2 || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap \
            >/dev/null || return 1
    fi
    note "making $BASE_IMAGE with debootstrap from this machine's package mirror: it cannot be pulled"
    folder=$(mktemp -d /var/tmp/coppice-base.XXXXXX)
    local options=(--variant=minbase)
    [[ -f $keyring ]] && options+=("--keyring=$keyring")
    [[ $mirror == https:* ]] && options+=(--include=ca-certificates)
    local how=("${options[@]}" trixie "$folder/root" "$mirror") scripts=/usr/share/debootstrap/scripts
    [[ -e $scripts/trixie ]] || how+=("$scripts/sid") # an older debootstrap
    http_proxy=$(apt_proxy) debootstrap "${how[@]}" >"$folder/log" 2>&1 || status=$?
    if [[ $status == 0 ]]; then
        tar -C "$folder/root" -c . | "$ENGINE" import - "$BASE_IMAGE" >/dev/null || status=$?
    else
        tail -n 5 "$folder/log" >&2
    fi
    rm -rf "$folder"
    return "$status"
}

base_has_certificates() {
    "$ENGINE" run --rm "$BASE_IMAGE" test -s /etc/ssl/certs/ca-certificates.crt
}

image_name() {
    local hash
    hash=$(sha256sum <"$DOCKERFILE")
    printf '%s-%s:%s' "$IMAGE_PREFIX" "$1" "${hash:0:12}"
}

image_exists() { "$ENGINE" image inspect "$1" >/dev/null 2>&1; }

# image_ensure STAGE: makes the image if it is not there.
image_ensure() {
    local image mirror log="$ROOT/.cache/image-$1.log"
    image=$(image_name "$1")
    image_exists "$image" && return 0
    mkdir -p "$ROOT/.cache"
    exec {image_lock}>"$ROOT/.cache/image.lock"
    flock "$image_lock"
    if ! image_exists "$image"; then
        mirror=$(apt_mirror)
        image_exists "$BASE_IMAGE" || base_pull || base_bootstrap "$mirror" \
            || die "$BASE_IMAGE can neither be pulled nor made here: load that image into $ENGINE."
        # A pulled image may have no certificates to check that mirror by: then its own mirror.
        [[ $mirror != https:* ]] || base_has_certificates || mirror=
        note "building image $image: compilers and libraries (log: ${log#"$ROOT/"})"
        local proxy
        proxy=$(apt_proxy)
        DOCKER_BUILDKIT=0 "$ENGINE" build --network host --target "$1" -t "$image" \
            --build-arg "BASE=$BASE_IMAGE" --build-arg "MIRROR=$mirror" \
            ${proxy:+--build-arg "http_proxy=$proxy"} - <"$DOCKERFILE" >"$log" 2>&1 || {
            tail -n 8 "$log" >&2
            die "the image could not be built: $log says why."
        }
    fi
    exec {image_lock}>&-
}

# --- the choice --------------------------------------------------------------------------------

# environment_is_made STAGE: nothing needs to be built before it can be entered.
environment_is_made() {
    [[ -n ${COPPICE_DEV_ENVIRONMENT:-} ]] || native_has "$1" || { engine_ensure && image_exists "$(image_name "$1")"; }
}

# environment_choose STAGE: sets ENVIRONMENT to "native" or the name of an image that is there.
# `test` has all that `build` has, and is taken for it where it is there already, so that build
# folders are not configured to and fro.
environment_choose() {
    if [[ -n ${COPPICE_DEV_ENVIRONMENT:-} ]]; then
        ENVIRONMENT=$COPPICE_DEV_ENVIRONMENT # we are in the container
        return
    fi
    if native_has "$1"; then
        ENVIRONMENT=native
        return
    fi
    engine_ensure
    ENVIRONMENT=$(image_name test)
    image_exists "$ENVIRONMENT" && return
    ENVIRONMENT=$(image_name "$1")
    image_ensure "$1"
}

# environment_is_here: nothing to enter, this process runs in the build environment.
environment_is_here() {
    [[ -n ${COPPICE_DEV_ENVIRONMENT:-} || $ENVIRONMENT == native ]]
}

# The user's cache of data sets, shared with the container.
user_cache() { printf '%s' "${COPPICE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/coppice}"; }

# The engine's client passes signals on, but SIGKILL to it would leave the command running in its
# container. So the client holds a FIFO open (leash_tie), and when that closes, the command is
# killed (leash_follow, in the container, before the command replaces this process).
leash_tie() {
    local leash=$ROOT/.cache/leash.$$
    rm -f "$leash"
    mkfifo "$leash" 2>/dev/null || return 0
    exec 9<>"$leash"
    arguments+=(-e "COPPICE_DEV_LEASH=$leash")
}

leash_follow() {
    local leash=${COPPICE_DEV_LEASH:-}
    unset COPPICE_DEV_LEASH
    [[ -p $leash ]] || return 0
    (
        (
            exec <"$leash" # returns when both sides have it open
            rm -f "$leash"
            read -r || kill -KILL $$
        ) >/dev/null 2>&1 &
    )
}

# inside COMMAND...: replaces this process by COMMAND in the chosen container, same folders, same
# user, same working directory; signals and the exit status come through.
inside() {
    local cache name mounts=("$ROOT" /tmp) arguments=() folder
    cache=$(user_cache)
    mkdir -p "$ROOT/.cache/home" "$cache"
    [[ -d $ROOT/../shared ]] && mounts+=("$(realpath "$ROOT/../shared")")
    mounts+=("$cache")
    [[ $PWD/ == "$ROOT"/* || $PWD/ == /tmp/* || $PWD/ == "$(realpath "$ROOT/..")"/shared/* ]] \
        || mounts+=("$PWD")
    # Tests start containers of their own, beside the one they run in.
    if [[ $1 == "$ROOT/dev" && ${2:-} == test && $ENGINE == docker && -S $ENGINE_SOCKET ]]; then
        mounts+=("$ENGINE_SOCKET")
        arguments+=(--group-add "$(stat -c %g "$ENGINE_SOCKET")")
    fi
    for folder in "${mounts[@]}"; do
        arguments+=(-v "$folder:$folder")
    done
    for name in $(compgen -e COPPICE_) NO_COLOR CI TERM COLUMNS; do
        [[ -n ${!name+set} ]] && arguments+=(-e "$name")
    done
    [[ -t 0 && -t 1 ]] && arguments+=(-t)
    if [[ $ENGINE == podman ]]; then
        arguments+=(--security-opt label=disable)
        [[ $EUID == 0 ]] || arguments+=(--userns=keep-id)
    fi
    leash_tie
    exec "$ENGINE" run --rm --init -i "${arguments[@]}" --user "$(id -u):$(id -g)" --network host \
        --cap-add SYS_PTRACE --security-opt seccomp=unconfined -w "$PWD" \
        -e "HOME=$ROOT/.cache/home" -e "COPPICE_CACHE=$cache" -e LANG=C.UTF-8 \
        -e "COPPICE_DEV_ENVIRONMENT=$ENVIRONMENT" "$ENVIRONMENT" "$@"
}

# build_beside_image PRESET...: while the packages of the test image are unpacked, which keeps one core
# busy, programs compile in the build image, which it stands on. What fails is left to the stage that
# needs it.
build_beside_image() {
    local preset early
    image_ensure build
    note "compiling beside it (log: .cache/early-build.log)"
    ENVIRONMENT=$(image_name build)
    for preset in "$@"; do
        (inside "$ROOT/dev" build --preset "$preset") || break
    done </dev/null >"$ROOT/.cache/early-build.log" 2>&1 &
    early=$!
    image_ensure test
    wait "$early" || true
}

# choose_for_command COMMAND: `exec` is content with the build image, unless COMMAND is only in the
# test image (python3, gdb, valgrind, clang-tidy ...).
choose_for_command() {
    local image
    [[ -z ${COPPICE_DEV_ENVIRONMENT:-} && $1 != */* && $1 != coppice* ]] || return 0
    native_has build && return 0
    engine_ensure
    image_exists "$(image_name test)" && return 0
    environment_choose build
    image=$ENVIRONMENT
    # shellcheck disable=SC2016 # $1 is the container's
    "$ENGINE" run --rm --network host "$image" sh -c 'command -v "$1"' sh "$1" >/dev/null && return 0
    note "$1 is not in the build image: taking the test image, which has more tools"
    image_ensure test
}
