#!/bin/sh
# Debian 13's packages that Coppice is built with (`build`) or runs with (`run`). Called by
# deploy/Dockerfile; what is there already is not installed again.
set -eu

case $1 in
    build)
        packages="gcc libc6-dev cmake ninja-build pkg-config libuv1-dev libnng-dev
            protobuf-c-compiler protobuf-compiler libprotobuf-c-dev libopenblas-pthread-dev
            libsqlite3-dev libyaml-dev libxxhash-dev libsodium-dev zlib1g-dev libcairo2-dev
            libpng-dev libjpeg62-turbo-dev libcurl4-openssl-dev libssl-dev"
        ;;
    run)
        packages="libuv1t64 libnng1 libprotobuf-c1 libopenblas0-pthread libsqlite3-0 libyaml-0-2
            libxxhash0 libsodium23 zlib1g libcairo2 libpng16-16t64 libjpeg62-turbo libcurl4t64
            libssl3t64 ca-certificates"
        ;;
    *)
        echo "packages.sh: build or run?" >&2
        exit 2
        ;;
esac

# shellcheck disable=SC2086 # a list of words
if ! dpkg-query -W $packages >/dev/null 2>&1; then
    if [ -n "${MIRROR:-}" ]; then
        rm -f /etc/apt/sources.list.d/debian.sources
        echo "deb $MIRROR trixie main" >/etc/apt/sources.list
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
    rm -rf /var/lib/apt/lists/*
fi
