# shellcheck shell=bash
# Debian 13 in a folder, entered by chroot: for root on machines where no container can run. Sourced by environment.sh.
#
# If root may mount, the command sees this machine's /proc, /dev, /tmp and this repository. In an unprivileged
# container, root may not mount. The command then runs on a copy of the repository, and its changes outside build/
# and .cache/ are copied back.

CHROOT_HOME=${COPPICE_CHROOT_HOME:-/var/cache/coppice-dev}

# apt_sources: prints this machine's apt sources from both file formats, as lines "URI SUITE COMPONENTS".
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

# apt_mirror: prints the Debian archive that this machine uses, if any. Archives of third parties may also have a
# component "main", so only paths that end in "debian" count.
apt_mirror() {
    apt_sources | awk '$1 ~ /^https?:/ && $1 !~ /security/ && $2 ~ /^[a-z]+(-updates)?$/ &&
        / main( |$)/ { if ($1 ~ /\/debian\/?$/) { print $1; exit } }'
}

apt_proxy() {
    local proxy=${http_proxy:-}
    command -v apt-config >/dev/null && eval "$(apt-config shell proxy Acquire::http::Proxy)"
    printf '%s' "$proxy"
}

# debootstrap_ensure: installs debootstrap, and the keys of Debian's archive.
debootstrap_ensure() {
    command -v debootstrap >/dev/null && return 0
    command -v apt-get >/dev/null || return 1
    note "installing debootstrap, to make a Debian 13 system"
    apt-get update -qq >/dev/null 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap \
        debian-archive-keyring ca-certificates >/dev/null 2>&1
}

# bootstrap FOLDER MIRROR: makes a minimal Debian 13 in FOLDER. If MIRROR is empty, as on Ubuntu, debootstrap uses its
# default mirror.
bootstrap() {
    local folder=$1 mirror=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    local options=(--variant=minbase) scripts=/usr/share/debootstrap/scripts how
    [[ -f $keyring ]] && options+=("--keyring=$keyring")
    [[ $mirror == https:* ]] && options+=(--include=ca-certificates)
    how=("${options[@]}" trixie "$folder" "$mirror")
    [[ -e $scripts/trixie ]] || how+=("$scripts/sid") # an older debootstrap
    http_proxy=$(apt_proxy) debootstrap "${how[@]}"
}

chroot_folder() { printf '%s/%s' "$CHROOT_HOME" "$(image_hash)"; }

chroot_can_work() { [[ $EUID == 0 ]] && { command -v debootstrap || command -v apt-get; } >/dev/null; }

# in_chroot FOLDER [NAME=VALUE...] COMMAND...: runs COMMAND in FOLDER of the chroot, with these variables.
in_chroot() {
    local where=$1
    shift
    chroot "$(chroot_folder)" /usr/bin/env -i -C "$where" PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
}

# chroot_ensure GROUP...: makes the chroot if necessary, and installs missing groups of packages in it.
chroot_ensure() {
    local folder log mirror lock group more=() why="no container can run here"
    [[ -z $FORCED ]] || why="--$FORCED was given"
    folder=$(chroot_folder)
    log=$CHROOT_HOME/log
    mkdir -p "$CHROOT_HOME"
    exec {lock}>"$CHROOT_HOME/lock"
    flock "$lock"
    if [[ ! -d $folder ]]; then
        debootstrap_ensure || die "debootstrap could not be installed: $(native_advice "$@")"
        mirror=$(apt_mirror)
        note "making a Debian 13 system in $folder with debootstrap, once: $why (log: $log)"
        rm -rf "$folder.new"
        bootstrap "$folder.new" "$mirror" >"$log" 2>&1 || {
            tail -n 5 "$log" >&2
            die "debootstrap failed: see $log."
        }
        install -D -t "$folder.new/opt/coppice-dev" "$PACKAGES" "$ROOT"/deploy/dev/dpkg.cfg
        cp "$ROOT/deploy/dev/dpkg.cfg" "$folder.new/etc/dpkg/dpkg.cfg.d/coppice-dev"
        mkdir -p "$folder.new/dev/shm"
        chmod 1777 "$folder.new/dev/shm"
        mv "$folder.new" "$folder"
    fi
    cp -L /etc/resolv.conf /etc/hosts "$folder/etc/" 2>/dev/null || true
    for group in "$@"; do
        [[ -e $folder/opt/coppice-dev/has-$group ]] || more+=("$group")
    done
    if [[ ${#more[@]} -gt 0 ]]; then
        note "installing packages in it, once: ${more[*]} (log: $log)"
        in_chroot / "http_proxy=$(apt_proxy)" sh /opt/coppice-dev/packages.sh install "${more[@]}" >"$log" 2>&1 || {
            tail -n 5 "$log" >&2
            die "the packages could not be installed: see $log."
        }
        in_chroot / apt-get clean
        for group in "${more[@]}"; do touch "$folder/opt/coppice-dev/has-$group"; done
    fi
    exec {lock}>&-
}

# chroot_enter COMMAND...: replaces this process by COMMAND in the chroot.
chroot_enter() {
    local name variables=()
    for name in $(compgen -e COPPICE_) NO_COLOR CI TERM COLUMNS http_proxy https_proxy; do
        [[ -n ${!name+set} ]] && variables+=("$name=${!name}")
    done
    variables+=("HOME=$ROOT/.cache/home" "COPPICE_CACHE=$(user_cache)" "COPPICE_DEV_ENVIRONMENT=$ENVIRONMENT")
    mkdir -p "$ROOT/.cache/home" "$(user_cache)"
    if unshare -m true 2>/dev/null; then
        chroot_enter_mounted "$@"
    else
        chroot_enter_copy "$@"
    fi
}

chroot_enter_mounted() {
    local folder
    folder=$(chroot_folder)
    # shellcheck disable=SC2016 # for the inner shell
    exec unshare -m --propagation private bash -c '
        folder=$1 count=$2 where=$3
        shift 3
        for path in /proc /sys /dev "${@:1:count}"; do
            [[ -d $path ]] || continue
            mkdir -p "$folder$path"
            mount --rbind "$path" "$folder$path" || exit
        done
        shift "$count"
        exec chroot "$folder" /usr/bin/env -i -C "$where" PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
        ' chroot "$folder" 5 "$PWD" /tmp "$ROOT" "$(realpath -m "$ROOT/../shared")" "$(user_cache)" "$PWD" \
        "${variables[@]}" "$@"
}

chroot_enter_copy() {
    local folder copy mnist status=0 where=$PWD
    folder=$(chroot_folder)
    copy=$folder$ROOT
    [[ $where/ == "$ROOT"/* ]] || die "commands in this chroot see only $ROOT, because root may not mount here: \
start ./dev from that folder."
    chroot_copy_in "$copy"
    mnist=$(realpath -m "$ROOT/../shared/mnist")
    for name in "$mnist" "${COPPICE_MNIST:-$mnist}" "$(user_cache)"; do
        [[ -d $name && ! -e $folder$name ]] || continue
        mkdir -p "$folder$(dirname "$name")"
        cp -a "$name" "$folder$name"
    done
    mkdir -p "$copy/.cache/home" "$folder$(user_cache)" "$folder$where"
    touch "$copy/.cache/started"
    in_chroot "$where" "${variables[@]}" "$@" || status=$?
    (cd "$copy" && find . -newer .cache/started -type f -not -path './build/*' -not -path './.cache/*' \
        -not -path './.git/*' -not -name '*.pyc' -print0 | tar -c --format=posix --null -T -) | tar -C "$ROOT" -x --no-same-owner
    exit "$status"
}

# files_of FOLDER: prints "PATH<tab>size, time and mode" of each file of a repository, without build products.
files_of() {
    (cd "$1" && find . \( -path ./build -o -path ./.cache -o -name __pycache__ \) -prune -o \( -type f -o -type l \) \
        -printf '%P\t%s %T@ %m\n' | sort)
}

# chroot_copy_in COPY: makes the files of COPY equal to this repository's, except the runs/ folders of both.
chroot_copy_in() {
    local copy=$1 here there
    here=$(files_of "$ROOT")
    mkdir -p "$copy"
    there=$(files_of "$copy" | grep -v '^runs/' || true)
    comm -13 <(cut -f 1 <<<"$here") <(cut -f 1 <<<"$there") | (cd "$copy" && xargs -r -d '\n' rm -f)
    comm -23 <(echo "$here") <(echo "$there") | cut -f 1 \
        | tar -C "$ROOT" -c --format=posix -T - | tar -C "$copy" -x --no-same-owner
}
