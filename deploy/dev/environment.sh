# shellcheck shell=bash
# Chooses the build environment: this system if it has or can get the required packages, otherwise a Debian 13
# system in a container or in a folder. Sourced by ./dev, which sets ROOT and calls environment_choose and inside.
#
# Every step that changes the machine prints one line on stderr: what it does, and why.
# COPPICE_BASE_IMAGE, COPPICE_IMAGE_PREFIX and COPPICE_CHROOT_HOME override the default names.

note() { printf 'dev: %s\n' "$*" >&2; }
die() {
    printf 'dev: %s\n' "$*" >&2
    exit 1
}

# shellcheck source=deploy/dev/native.sh
source "$ROOT/deploy/dev/native.sh"
# shellcheck source=deploy/dev/engine.sh
source "$ROOT/deploy/dev/engine.sh"
# shellcheck source=deploy/dev/chroot.sh
source "$ROOT/deploy/dev/chroot.sh"

# --- the choice --------------------------------------------------------------------------------

FORCED="" # native, chroot or engine, after --native, --chroot or --engine

# environment_choose GROUP...: sets ENVIRONMENT to "native", "chroot" or the name of an image that has these groups
# of packages (deploy/packages.sh). It takes the first of these that works:
#   1. this system, if it has the packages, or if root can install them;
#   2. a container engine that answers, or, for tests of containers, one that can be installed;
#   3. a chroot;
#   4. this system, if it can build; tests with missing packages are skipped.
environment_choose() {
    if [[ -n ${COPPICE_DEV_ENVIRONMENT:-} ]]; then
        ENVIRONMENT=$COPPICE_DEV_ENVIRONMENT # this process already runs inside
        return
    fi
    ENVIRONMENT=native
    case $FORCED in
        native) choose_native "$@" ;;
        engine) choose_engine "$@" || die "no container engine answers, and none can be started here." ;;
        chroot) choose_chroot "$@" || die "a chroot needs root, and debootstrap or apt-get." ;;
        *)
            if native_has "$@"; then
                choose_native "$@"
            elif [[ $EUID == 0 ]] && native_can_have; then
                choose_native "$@"
            elif engine_is_here; then
                choose_engine "$@"
            elif [[ " $* " == *" containers "* ]] && choose_engine "$@"; then
                :
            elif ! choose_chroot "$@"; then
                choose_native "$@"
            fi
            ;;
    esac
}

choose_native() {
    [[ $EUID != 0 ]] || ! native_can_have || native_has "$@" || native_install "$@"
    native_has build || die "this system lacks $(lacks build | paste -sd ,) for a build, and ./dev cannot get it. \
Type: $(native_advice "$@")"
    # Tests of containers use the engine and the base image; without an engine they are skipped.
    [[ " $* " != *" containers "* ]] || ! engine_ensure || base_ensure "$(apt_mirror)" || true
}

choose_engine() {
    engine_ensure || return 1
    ENVIRONMENT=$(image_find "$@")
    [[ -z $ENVIRONMENT ]] || return 0
    if [[ $* == "$EVERYTHING" ]]; then
        build_beside_image release asan tsan
    else
        image_ensure "$@"
    fi
    ENVIRONMENT=$(image_name "$@")
}

choose_chroot() {
    chroot_can_work || return 1
    chroot_ensure "$@"
    ENVIRONMENT=chroot
}

# environment_is_here: succeeds if this process already runs in the build environment.
environment_is_here() {
    [[ -n ${COPPICE_DEV_ENVIRONMENT:-} || $ENVIRONMENT == native ]]
}

# inside COMMAND...: replaces this process by COMMAND in the chosen environment, with the same folders, user and
# working directory. Signals and the exit status are passed on.
inside() {
    if [[ $ENVIRONMENT == chroot ]]; then
        chroot_enter "$@"
    else
        image_enter "$@"
    fi
}

# The user's cache of data sets, shared with the container.
user_cache() { printf '%s' "${COPPICE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/coppice}"; }

# The engine's client passes signals on, but SIGKILL to the client would leave the command running
# in its container. So the client holds a FIFO open (leash_tie). When the FIFO closes, the command
# is killed (leash_follow, started in the container before the command).
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
            exec <"$leash" # returns when both sides have opened it
            rm -f "$leash"
            read -r || kill -KILL $$
        ) >/dev/null 2>&1 &
    )
}

# build_beside_image PRESET...: makes the image for all tests. Meanwhile it compiles the presets in the build image,
# because unpacking packages keeps only one core busy. The stage that needs a failed build reports it.
build_beside_image() {
    local preset early
    image_ensure build
    note "compiling in parallel (log: .cache/early-build.log)"
    ENVIRONMENT=$(image_name build)
    for preset in "$@"; do
        (inside "$ROOT/dev" build --preset "$preset") || break
    done </dev/null >"$ROOT/.cache/early-build.log" 2>&1 &
    early=$!
    # shellcheck disable=SC2086 # a list of words
    image_ensure $EVERYTHING
    wait "$early" || true
}

# groups_for_command COMMAND: prints the groups of packages that contain this program, for `exec`.
groups_for_command() {
    case ${1##*/} in
        python3* | pytest* | strace | sqlite3 | ctags | openssl | ip | ps) echo build check ;;
        gdb | valgrind) echo build check valgrind ;;
        clang* | llvm-* | shellcheck) echo build check clang ;;
        qemu-* | aarch64-*) echo build check qemu ;;
        docker* | kustomize | systemd*) echo build check containers ;;
        *) echo build ;;
    esac
}
