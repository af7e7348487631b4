# shellcheck shell=bash
# What ./dev test, lint and fmt do. Sourced by ./dev.
matches() { local name=$1 pattern; shift; for pattern in "$@"; do [[ $name == *"$pattern"* ]] && return 0; done; return 1; }
enter_test() { enter test test "$@"; }
