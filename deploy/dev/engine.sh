# shellcheck shell=bash
# Containers as the build environment. Sourced by environment.sh.
#
# The name of an image has its groups of packages (deploy/packages.sh) and a hash of the files that make it:
# PREFIX-build:HASH, PREFIX-check:HASH, PREFIX-test:HASH (all groups), PREFIX-test-clang-qemu:HASH (these groups).

BASE_IMAGE=${COPPICE_BASE_IMAGE:-debian:trixie-slim}
IMAGE_PREFIX=${COPPICE_IMAGE_PREFIX:-coppice-dev}
ENGINE_SOCKET=/var/run/docker.sock
EVERYTHING="build check parity valgrind clang qemu containers"

# --- the engine --------------------------------------------------------------------------------

# Sets ENGINE to the engine that answers, docker or podman, and IMAGES to its images.
engine_answers() {
    [[ -z ${IMAGES:-} ]] || return 0
    for ENGINE in docker podman; do
        command -v "$ENGINE" >/dev/null || continue
        IMAGES=$(timeout 20 "$ENGINE" images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null && echo .) && return 0
    done
    ENGINE=docker
    return 1
}

# engine_can_work: succeeds if containers can run here; they cannot in an unprivileged container.
engine_can_work() { [[ $EUID == 0 ]] && unshare -m true 2>/dev/null; }

# engine_is_here: succeeds if an engine answers, or if its daemon is installed and can be started.
engine_is_here() {
    engine_answers || { command -v dockerd >/dev/null && engine_can_work && engine_start; }
}

# engine_start: starts the daemon directly, because its init script fails where it may not raise `ulimit`.
# Only one ./dev at a time does this; the others wait.
engine_start() {
    local log=${TMPDIR:-/tmp}/coppice-dockerd.log pid_file=/var/run/docker.pid arguments lock i
    [[ -d /sys/fs/cgroup ]] || note "this machine has no cgroups: containers may fail to start"
    exec {lock}>"${TMPDIR:-/tmp}/coppice-dockerd.lock"
    flock "$lock"
    for arguments in "" "--iptables=false --ip6tables=false --bridge=none"; do
        engine_answers && break
        # After a restart of the machine, another process may have this number.
        if [[ -f $pid_file && $(cat "/proc/$(<"$pid_file")/comm" 2>/dev/null) != dockerd ]]; then
            note "removing $pid_file: its process has ended"
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
    note "installing ${packages[*]}: no container engine is installed"
    apt-get update -qq >&2 || note "apt-get update failed; using the existing package lists"
    # From Debian 13 on, the client is a separate package.
    apt-cache show docker-cli >/dev/null 2>&1 && packages+=(docker-cli)
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
        >"${TMPDIR:-/tmp}/coppice-apt.log" 2>&1 \
        || note "apt-get failed: see ${TMPDIR:-/tmp}/coppice-apt.log"
    hash -r
}

# engine_ensure: starts an engine, and installs it first if necessary and possible.
engine_ensure() {
    engine_is_here && return 0
    engine_can_work && command -v apt-get >/dev/null || return 1
    command -v dockerd >/dev/null || engine_install
    engine_is_here
}

# --- images ------------------------------------------------------------------------------------

base_pull() {
    note "pulling $BASE_IMAGE, the base of the build image"
    timeout 20 "$ENGINE" pull -q "$BASE_IMAGE" >/dev/null 2>&1
}

base_bootstrap() {
    local mirror=$1 folder status=0
    [[ $EUID == 0 && -n $mirror ]] || return 1
    note "making $BASE_IMAGE with debootstrap from this machine's package mirror, because it cannot be pulled"
    folder=$(mktemp -d /var/tmp/coppice-base.XXXXXX)
    bootstrap "$folder/root" "$mirror" >"$folder/log" 2>&1 || status=$?
    if [[ $status == 0 ]]; then
        tar -C "$folder/root" -c . | "$ENGINE" import - "$BASE_IMAGE" >/dev/null || status=$?
    else
        tail -n 5 "$folder/log" >&2
    fi
    rm -rf "$folder"
    return "$status"
}

base_ensure() { image_exists "$BASE_IMAGE" || base_pull || base_bootstrap "$1"; }

base_has_certificates() {
    "$ENGINE" run --rm "$BASE_IMAGE" test -s /etc/ssl/certs/ca-certificates.crt
}

image_hash() { cat "$ROOT"/deploy/{dev/Dockerfile,dev/dpkg.cfg,packages.sh} | sha256sum | head -c 12; }

# image_name GROUP...: prints the name of the image with these groups.
image_name() {
    local kind
    case $* in
        build) kind=build ;;
        "build check" | check) kind=check ;;
        "$EVERYTHING") kind="test" ;;
        *) kind=test-$(tr ' ' '\n' <<<"$*" | grep -vxE 'build|check' | sort -u | paste -sd -) ;;
    esac
    printf '%s-%s:%s' "$IMAGE_PREFIX" "$kind" "$(image_hash)"
}

# image_has KIND GROUP...: succeeds if an image of this kind has these groups.
image_has() {
    local kind=$1 group
    shift
    for group in "$@"; do
        case $kind:$group in
            test:* | *:build | check:check | test-*:check) ;;
            *) [[ -$kind- == *-$group-* ]] || return 1 ;;
        esac
    done
}

# image_find GROUP...: prints an existing image with these groups, if any. It prefers the image with all groups, so
# that build folders are not configured again and again.
image_find() {
    local hash image
    hash=$(image_hash)
    while read -r image; do
        image=${image#localhost/}
        [[ $image == "$IMAGE_PREFIX"-*:"$hash" ]] || continue
        image=${image#"$IMAGE_PREFIX-"}
        ! image_has "${image%:*}" "$@" || printf '%s-%s\n' "$IMAGE_PREFIX" "$image"
    done <<<"$IMAGES" | awk '{ print ($0 !~ /-test:/), $0 }' | sort | head -n 1 | cut -d ' ' -f 2
}

image_exists() { "$ENGINE" image inspect "$1" >/dev/null 2>&1; }

# image_ensure GROUP...: makes the image if it does not exist.
image_ensure() {
    local image mirror target=test log
    image=$(image_name "$@")
    log=$ROOT/.cache/image-${image%:*}.log
    [[ $image == "$IMAGE_PREFIX"-test* ]] || target=${image#"$IMAGE_PREFIX-"} target=${target%:*}
    image_exists "$image" && return 0
    mkdir -p "$ROOT/.cache"
    exec {image_lock}>"$ROOT/.cache/image.lock"
    flock "$image_lock"
    if ! image_exists "$image"; then
        mirror=$(apt_mirror)
        base_ensure "$mirror" || die "$BASE_IMAGE can be neither pulled nor made: load this image into $ENGINE."
        # A pulled image may lack the certificates to check an https mirror: then use its own mirror.
        [[ $mirror != https:* ]] || base_has_certificates || mirror=
        note "building image $image: compilers and libraries (log: ${log#"$ROOT/"})"
        image_build "$image" "$target" "$mirror" "$@" >"$log" 2>&1 || {
            tail -n 8 "$log" >&2
            die "the image could not be built: see $log."
        }
    fi
    exec {image_lock}>&-
}

# image_build IMAGE TARGET MIRROR GROUP...
image_build() {
    local image=$1 target=$2 mirror=$3 more proxy folder status=0
    shift 3
    more=$(tr ' ' '\n' <<<"$*" | grep -vxE 'build|check' | xargs)
    proxy=$(apt_proxy)
    folder=$(mktemp -d)
    cp "$ROOT"/deploy/{dev/Dockerfile,dev/dpkg.cfg,packages.sh} "$folder"
    DOCKER_BUILDKIT=0 "$ENGINE" build --network host --target "$target" -t "$image" \
        --build-arg "BASE=$BASE_IMAGE" --build-arg "MIRROR=$mirror" --build-arg "MORE=$more" \
        ${proxy:+--build-arg "http_proxy=$proxy"} "$folder" || status=$?
    rm -rf "$folder"
    return "$status"
}

# image_enter COMMAND...: replaces this process by COMMAND in a container of $ENVIRONMENT, with the same folders,
# user and working directory. Signals and the exit status are passed on.
image_enter() {
    local cache name mounts=("$ROOT" /tmp) arguments=() folder
    cache=$(user_cache)
    mkdir -p "$ROOT/.cache/home" "$cache"
    [[ -d $ROOT/../shared ]] && mounts+=("$(realpath "$ROOT/../shared")")
    mounts+=("$cache")
    [[ $PWD/ == "$ROOT"/* || $PWD/ == /tmp/* || $PWD/ == "$(realpath "$ROOT/..")"/shared/* ]] \
        || mounts+=("$PWD")
    # Tests start other containers, next to the one in which they run.
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

