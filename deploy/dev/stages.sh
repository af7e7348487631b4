# shellcheck shell=bash
# What ./dev test, lint and fmt do. Sourced by ./dev.
#
# A stage is a function stage_NAME [PATTERN...]: it builds what it needs and runs its tests, leaves
# JUnit files of them in $RESULTS, calls `check` for tests that are plain commands (a build, a lint).

# One table: stage, minutes it may take on 2 cores, what it does. Over budget is a failure.
STAGES='
image       7   the container image, where there is none, and first builds beside that
release     9   release build, quick tests
asan        7   build with ASan and UBSan, quick tests
tsan        4   build with TSan, tests of threads
qemu        6   build for arm64, tests under qemu
sim         5   the installation in virtual time: thousands of seeds, planted bugs
chaos       6   seeded faults at real processes
soak        5   jobs without end, workers that die all the time
containers 10   tests that start containers of their own
fuzz        8   each fuzz target for 20 seconds
lint        4   clang-format, clang-tidy, shellcheck
long       40   long tests (only with --all)
'
# Stages that wait more than they compute, those of a row one after the other: each row runs beside
# the other one and beside those of COMPUTING, which are as nice as can be, after all others.
WAITING=("containers" "chaos soak")
COMPUTING=(qemu sim fuzz lint)

PASSED=0 FAILED=0 SKIPPED=0
ALL=0 # --all was given
RESULTS=$ROOT/.cache/test
SUMMARY=$RESULTS/stages.txt

# matches NAME PATTERN...: does a pattern stand in the name?
matches() {
    local name=$1 pattern
    shift
    for pattern in "$@"; do
        [[ $name == *"$pattern"* ]] && return 0
    done
    return 1
}

# check NAME COMMAND...: one test that is a command.
check() {
    local name=$1
    shift
    if "$@"; then
        PASSED=$((PASSED + 1))
    else
        FAILED=$((FAILED + 1))
        printf 'FAILED: %s\n' "$name"
    fi
}

# run_ctest PRESET ARGUMENTS...: the C tests of a build.
run_ctest() {
    local preset=$1 name wrapper=()
    shift
    [[ $preset != tsan ]] || wrapper=(setarch -R)
    name=$RESULTS/ctest-$preset-$RANDOM.xml
    "${wrapper[@]}" ctest --test-dir "$ROOT/build/$preset" --output-on-failure -j "$(nproc)" --no-tests=ignore \
        --test-output-size-passed 1000000 --test-output-size-failed 1000000 \
        --output-junit "$name" "$@" | sed '/^Internal ctest changing/d' || true
}

# run_pytest PRESET ARGUMENTS...: the Python tests, on the programs of a build.
run_pytest() {
    local preset=$1 status=0 wrapper=()
    shift
    [[ $preset != tsan ]] || wrapper=(setarch -R)
    (
        cd "$ROOT"
        export COPPICE_BIN=$ROOT/build/$preset/bin PYTHONDONTWRITEBYTECODE=1
        export COPPICE_BIN_ARM64=$ROOT/build/arm64/bin OMP_NUM_THREADS=1
        "${wrapper[@]}" python3 -m pytest -q -p no:cacheprovider --junitxml "$RESULTS/pytest-$preset-$RANDOM.xml" \
            -o junit_family=xunit1 --durations=5 --durations-min=5 "$@" tests
    ) || status=$?
    [[ $status == [015] ]] # 5: no test matches
}

# Two tests at a time: most of them wait, or compute on one core.
PAIRS=(-n 2 --dist load --maxschedchunk 1)

# build_stage PRESET TARGET...: a build that fails is one failed test; the tests of what was built run all
# the same.
build_stage() {
    check "the $1 build" build_all "$@"
}
build_all() {
    local preset=$1
    shift
    configure "$preset" && ninja -C "$ROOT/build/$preset" --quiet -k 0 "$@"
}

stage_release() {
    build_stage release
    if [[ $# == 0 ]]; then
        run_ctest release -L '^quick$'
        run_pytest release "${PAIRS[@]}" -m quick
    else
        local either=$* labels='not long'
        [[ $ALL == 0 ]] || labels=''
        run_ctest release -R "${either// /|}"
        run_pytest release -k "${either// / or }" -m "$labels"
    fi
}

stage_asan() {
    build_stage asan
    export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    export LSAN_OPTIONS=suppressions=$ROOT/tests/tools/lsan.supp:print_suppressions=0
    run_ctest asan -L '^quick$'
    run_pytest asan "${PAIRS[@]}" -m asan
}

# Without address space randomization: TSan's shadow memory has a fixed place.
stage_tsan() {
    build_stage tsan programs tests-threads
    export TSAN_OPTIONS=suppressions=$ROOT/tests/tools/tsan.supp:history_size=4
    run_ctest tsan -L '^threads$'
    run_pytest tsan -m threads
}

stage_qemu() {
    build_stage arm64 programs tests-qemu
    build_quietly release programs
    run_ctest arm64 -L '^qemu$'
    run_pytest release -m qemu
}

stage_sim() { labelled sim; }
stage_chaos() { labelled chaos "${PAIRS[@]}"; }
stage_soak() { labelled soak; }
stage_containers() { labelled containers; }
stage_long() { labelled long; }

# Each target is a test. The inputs that it finds are thrown away: a stage begins with the same ones.
stage_fuzz() {
    check "the fuzz build" build_quietly fuzz fuzz-targets
    nice python3 "$ROOT/tests/fuzz/fuzz.py" --seconds 20 --jobs 2 --cache "$RESULTS/fuzz" \
        --junit "$RESULTS/fuzz.xml" || true
}

# labelled LABEL ARGUMENTS...: the tests of a label, in the release build.
labelled() {
    local label=$1
    shift
    build_quietly release || return 1
    run_ctest release -L "^$label\$"
    run_pytest release -m "$label" "$@"
}

# --- lint --------------------------------------------------------------------------------------

# Our own sources, tracked or new. Prints paths from the root.
own_sources() {
    (cd "$ROOT" && git ls-files -co --exclude-standard -- "$@" | grep -v '\.pb-c\.' | sort -u \
        | while read -r path; do [[ -f $path ]] && printf '%s\n' "$path"; done)
}

lint_format() {
    own_sources '*.c' '*.h' '*.inc' \
        | (cd "$ROOT" && xargs -n 8 -P "$(nproc)" clang-format --dry-run -Werror 2>&1) \
        | awk -F: '/clang-format-violations/ { lines[$1]++ }
            END { for (file in lines) { printf "%s: %d places\n", file, lines[file]; bad = 1 }
                  exit bad }'
}

lint_shell() {
    (cd "$ROOT" && shellcheck -x dev .ci/run deploy/*.sh deploy/dev/*.sh deploy/slurm/* tests/containers/slurm/*.sh)
}

# clang-tidy of all sources takes longer than the stage may: files that changed come first, files
# that passed as they are (with the headers as they are) are not looked at again, and what does not
# fit into LINT_SECONDS is left for the next run, which says so.
lint_tidy() {
    local seconds=${LINT_SECONDS:-40} folder=$ROOT/.cache/tidy
    build_quietly release coppice-proto || return 1 # the generated headers
    mkdir -p "$folder"
    (cd "$ROOT" && python3 tests/tools/tidy.py --build build/release --cache "$folder" \
        --seconds "$seconds" --jobs "$(nproc)")
}

stage_lint() {
    check "clang-format (./dev fmt mends it)" lint_format
    check "shellcheck" lint_shell
    check "clang-tidy" lint_tidy
}

dev_lint() {
    PASSED=0 FAILED=0
    LINT_SECONDS=${LINT_SECONDS:-3600} stage_lint
    printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
    [[ $FAILED == 0 ]]
}

dev_fmt() {
    own_sources '*.c' '*.h' '*.inc' | (cd "$ROOT" && xargs -n 8 -P "$(nproc)" clang-format -i)
}

# --- the run -----------------------------------------------------------------------------------

budget_of() { awk -v stage="$1" '$1 == stage { print $2 }' <<<"$STAGES"; }

# stage_done STAGE SECONDS TESTS: the line of a stage; over its budget, one failure more.
stage_done() {
    local budget
    budget=$(budget_of "$1")
    printf '== %-10s %s of %d min, %d tests\n' "$1" "$(awk -v s="$2" 'BEGIN { printf "%.1f", s / 60 }')" \
        "$budget" "$3" | tee -a "$SUMMARY"
    if (($2 > budget * 60)); then
        printf 'FAILED: %s took longer than its budget\n' "$1" | tee -a "$SUMMARY"
        FAILED=$((FAILED + 1))
    fi
}

# run_stage STAGE PATTERN...
run_stage() {
    local stage=$1 started=$SECONDS before=$((PASSED + FAILED)) passed failed skipped
    shift
    printf '== %s\n' "$stage"
    rm -f "$RESULTS"/*.xml
    "stage_$stage" "$@" || check "stage $stage ran to its end" false
    if compgen -G "$RESULTS/*.xml" >/dev/null; then
        read -r passed failed skipped < <(python3 "$ROOT/tests/tools/count.py" "$RESULTS"/*.xml)
        PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
    fi
    stage_done "$stage" $((SECONDS - started)) $((PASSED + FAILED - before))
}

# run_beside STAGE...: stages, one after the other, in a process of their own, each with its own counts
# and folder of results. What they print is kept until collect_beside STAGE waits for it.
declare -A BESIDE=()
run_beside() {
    local stage
    for stage in "$@"; do
        stage_alone "$stage"
    done &
    for stage in "$@"; do BESIDE[$stage]=$!; done
}

stage_alone() {
    local RESULTS=$RESULTS/$1 PASSED=0 FAILED=0 SKIPPED=0
    mkdir -p "$RESULTS"
    run_stage "$1" >"$RESULTS/output" 2>&1
    printf '%d %d %d\n' "$PASSED" "$FAILED" "$SKIPPED" >"$RESULTS/counts"
}

collect_beside() {
    local counts=$RESULTS/$1/counts passed failed skipped
    wait "${BESIDE[$1]}" || true
    cat "$RESULTS/$1/output"
    if [[ -s $counts ]]; then
        read -r passed failed skipped <"$counts"
        PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
    else
        check "stage $1 ran to its end" false
    fi
}

# run_stages STAGE...: in this order; those that wait beside those that compute where both are named.
run_stages() {
    local stage row waiting=() computing=()
    for stage in "$@"; do
        if [[ " ${COMPUTING[*]} " == *" $stage "* ]]; then
            computing+=("$stage")
        elif [[ $# == 1 || " ${WAITING[*]} " != *" $stage "* ]]; then
            run_stage "$stage"
        fi
    done
    [[ $# -gt 1 ]] || WAITING=()
    for row in "${WAITING[@]}"; do
        local named=()
        for stage in $row; do
            [[ " $* " != *" $stage "* ]] || named+=("$stage")
        done
        [[ ${#named[@]} == 0 ]] || run_beside "${named[@]}"
        waiting+=("${named[@]}")
    done
    [[ ${#waiting[@]} == 0 || ${#computing[@]} == 0 ]] || renice -n 19 "$BASHPID" >/dev/null
    for stage in "${computing[@]}"; do run_stage "$stage"; done
    for stage in "${waiting[@]}"; do collect_beside "$stage"; done
}

# enter_test ARGUMENTS...: as `enter test`, and tells the inner run how long the image took.
enter_test() {
    local started=$SECONDS
    [[ $# -gt 0 ]] || environment_is_made test || build_beside_image release asan tsan
    environment_choose test
    environment_is_here || {
        export COPPICE_DEV_IMAGE_SECONDS=$((SECONDS - started))
        inside "$ROOT/dev" test "$@"
    }
}

dev_test() {
    local name stages=() patterns=()
    for name in "$@"; do
        case $name in
            --all) ALL=1 ;;
            -*) die "test takes --all and names of stages or tests." ;;
            release | asan | tsan | qemu | sim | chaos | soak | containers | fuzz | lint | long) stages+=("$name") ;;
            quick) stages+=(release) ;; # a label means the stage that it is for
            threads) stages+=(tsan) ;;
            *) patterns+=("$name") ;;
        esac
    done
    if [[ ${#stages[@]} == 0 && ${#patterns[@]} == 0 ]]; then
        # Fuzzing first beside those that wait: it takes the same time on a busy machine.
        stages=(release asan tsan fuzz qemu sim chaos soak containers lint)
        [[ $ALL == 0 ]] || stages+=(long)
    fi
    mkdir -p "$RESULTS"
    rm -rf "${RESULTS:?}"/*
    programs_on_path
    stage_done image "${COPPICE_DEV_IMAGE_SECONDS:-0}" 0
    run_stages "${stages[@]}"
    if [[ ${#patterns[@]} -gt 0 ]]; then
        run_stage release "${patterns[@]}"
    fi
    if ((PASSED + FAILED == 0)); then
        printf 'FAILED: no test has a name with: %s\n' "${patterns[*]}"
        FAILED=1
    fi
    awk -v s=$((SECONDS + ${COPPICE_DEV_IMAGE_SECONDS:-0})) 'BEGIN { printf "== all        %.1f min\n", s / 60 }' \
        >>"$SUMMARY"
    printf '\n'
    cat "$SUMMARY"
    printf '%d passed, %d failed' "$PASSED" "$FAILED"
    [[ $SKIPPED == 0 ]] || printf ', %d skipped' "$SKIPPED"
    printf '\n'
    [[ $FAILED == 0 ]]
}
