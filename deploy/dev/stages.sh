# shellcheck shell=bash
# Implements ./dev test, lint and fmt. Sourced by ./dev.
#
# A stage is a function stage_NAME [PATTERN...]. It builds what it needs, runs its tests, and writes
# JUnit files to $RESULTS. It calls `check` for tests that are plain commands (a build, a lint).

# Each stage, its time limit in minutes on 2 cores, and what it does. A stage over its limit fails.
STAGES='
image      10   makes the container image if there is none, and builds in parallel
release    12   release build, quick tests
parity      7   tests against PyTorch and ONNX Runtime
asan       14   build with ASan and UBSan, quick tests
tsan        4   build with TSan, threading tests
qemu       12   build for arm64, tests under qemu
sim        10   simulated installations in virtual time: thousands of seeds, injected bugs
chaos      12   seeded faults in real processes
soak        9   jobs for minutes, while workers die
containers 25   tests that start containers
fuzz       12   each fuzz target for 8 seconds
lint        6   clang-format, clang-tidy, shellcheck
long       40   long tests (only with --all)
'
STAGE_NAMES=$(awk '$1 != "image" { print $1 }' <<<"$STAGES" | xargs)
# WAITING are stages that mostly wait; those in one row run in sequence. The rows run in parallel with each other and
# with the other stages, which then have the lowest priority, as soon as the release stage is done.
WAITING=("containers" "chaos soak")

# groups_of_stage STAGE: prints the groups of packages (deploy/packages.sh) that its tests need.
groups_of_stage() {
    case $1 in
        parity | qemu | containers) printf 'build check %s\n' "$1" ;;
        tsan) echo build check valgrind ;;
        fuzz | lint) echo build check clang ;;
        long) echo "$EVERYTHING" ;;
        *) echo build check ;;
    esac
}

# lacks_for_stage STAGE: prints what is missing if none of its tests can run, one per line.
lacks_for_stage() {
    case $1 in
        parity) lacks_modules torch ;;
        asan) [[ -e /proc/self/maps ]] || echo /proc ;;
        tsan) setarch -R true 2>/dev/null || echo "permission to switch off address space randomization" ;;
        qemu) lacks qemu ;;
        containers) docker version >/dev/null 2>&1 || echo "a running container engine" ;;
        fuzz) lacks_programs clang python3 ;;
    esac
}

PASSED=0 FAILED=0 SKIPPED=0 CPU=0
ALL=0 # --all was given
LATER=() # stages that follow the release stage
RESULTS=$ROOT/.cache/test
SUMMARY=$RESULTS/stages.txt

# matches NAME PATTERN...: succeeds if NAME contains one of the patterns.
matches() {
    local name=$1 pattern
    shift
    for pattern in "$@"; do
        [[ $name == *"$pattern"* ]] && return 0
    done
    return 1
}

# check NAME COMMAND...: runs COMMAND as one test.
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

# skip COUNT WHAT MISSING: counts and prints tests that cannot run because something is missing.
skip() {
    [[ $1 -gt 0 ]] || return 0
    printf 'SKIPPED: %d %s: missing %s\n' "$1" "$2" "$(paste -sd , <<<"$3" | sed 's/,/, /g')" | tee -a "$SUMMARY"
    SKIPPED=$((SKIPPED + $1))
}

# c_tests_of LABEL, python_tests_of LABEL: print the number of tests with this label in the sources.
c_tests_of() {
    local label=$1 file count=0
    while read -r file; do
        grep -q 'LABELS: ' "$file" || [[ $label != quick ]] || count=$((count + 1))
        ! grep -qE "LABELS: .*\\b$label\\b" "$file" || count=$((count + 1))
    done <<<"$(cd "$ROOT" && find "$PWD/tests/unit" "$PWD/tests/conformance" -name 'test_*.c')"
    echo "$count"
}

python_tests_of() {
    # shellcheck disable=SC2016 # awk's $
    (cd "$ROOT" && find tests -name 'test_*.py' -print0 | sort -z | xargs -0 awk -v label="$1" '
        FNR == 1 { whole = FILENAME ~ /^tests\/parity\// ? "parity" : "quick"; own = ""; asan = 0 }
        /^pytestmark = pytest.mark/ { whole = substr($3, 13) }
        /^@pytest.mark.(quick|threads|qemu|sim|chaos|soak|containers|long)/ { own = substr($1, 14) }
        /^@pytest.mark.asan/ { asan = 1 }
        /^def test_/ { count += (own == "" ? whole : own) == label || (label == "asan" && asan); own = ""; asan = 0 }
        END { print count + 0 }')
}

# c_tests_named: prints the names of all C test programs.
c_tests_named() { find "$ROOT"/tests/{unit,conformance} -name 'test_*.c' | sed -E 's|.*/([^/]+)/([^/]+)\.c$|\1_\2|'; }

# python_tests_named "PATTERN or PATTERN...": prints the number of tests that match by their name or file name.
python_tests_named() {
    (cd "$ROOT" && find tests -name 'test_*.py' -exec grep -H '^def test_' {} +) | grep -cE -- "${1// or /|}" || true
}

# run_ctest PRESET ARGUMENTS...: runs the C tests of a build; ARGUMENTS go to ctest.
run_ctest() {
    local preset=$1 name wrapper=() lacking
    shift
    lacking=$(lacks_cmocka)
    if [[ -n $lacking ]]; then
        if [[ $1 == -L ]]; then
            skip "$(c_tests_of "${2//[^a-z]/}")" "C test programs" "$lacking"
        else
            skip "$(c_tests_named | grep -cE -- "$2" || true)" "C test programs" "$lacking"
        fi
        return 0
    fi
    [[ $preset != tsan ]] || wrapper=(setarch -R)
    name=$RESULTS/ctest-$preset-$RANDOM.xml
    "${wrapper[@]}" ctest --test-dir "$ROOT/build/$preset" --output-on-failure -j "$(nproc)" --no-tests=ignore \
        --test-output-size-passed 1000000 --test-output-size-failed 1000000 \
        --output-junit "$name" "$@" | sed '/^Internal ctest changing/d' || true
}

# run_pytest PRESET ARGUMENTS...: runs the Python tests with the programs of a build; ARGUMENTS go to pytest.
run_pytest() {
    local preset=$1 status=0 wrapper=() lacking
    shift
    lacking=$(lacks_programs python3; lacks_modules pytest numpy safetensors PIL yaml)
    if [[ -n $lacking ]]; then
        local words=$*
        if [[ $1 == -k ]]; then
            skip "$(python_tests_named "$2")" "Python tests" "$lacking"
        else
            skip "$(python_tests_of "${words##*-m }")" "Python tests" "$lacking"
        fi
        return 0
    fi
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

# Run two tests at a time, because most of them wait, or use one core.
PAIRS=(-n 2 --dist load --maxschedchunk 1)
[[ -z $(lacks_modules xdist) ]] || PAIRS=()

# build_stage PRESET TARGET...: builds for a stage. A failed build counts as one failed test, and the stage continues
# with the targets that were built.
build_stage() {
    check "the $1 build" build_all "$@"
}
build_all() {
    local preset=$1 lock status=0
    shift
    mkdir -p "$ROOT/build/$preset"
    exec {lock}>"$ROOT/build/$preset/.lock" # build_ahead may be building
    flock "$lock"
    configure "$preset" && ninja -C "$ROOT/build/$preset" --quiet -k 0 "$@" || status=$?
    exec {lock}>&-
    return "$status"
}

# build_of_stage STAGE: prints the preset and the targets that it builds.
build_of_stage() {
    case $1 in
        asan) echo asan ;;
        tsan) echo tsan programs tests-threads ;;
        fuzz) echo fuzz fuzz-targets ;;
        qemu) echo arm64 programs tests-qemu ;;
    esac
}

# build_ahead STAGE...: builds for later stages, at low priority, while earlier tests run. Each stage builds
# again, which then takes no time, and reports errors.
build_ahead() {
    local stage words
    renice -n 19 "$BASHPID" >/dev/null
    for stage in "$@"; do
        read -ra words <<<"$(build_of_stage "$stage")"
        [[ ${#words[@]} == 0 || -n $(lacks_for_stage "$stage") ]] || build_quietly "${words[@]}" || true
    done >/dev/null 2>&1
}

stage_release() {
    if [[ $# == 0 ]]; then
        build_stage release
        build_ahead "${LATER[@]}" &
        run_ctest release -L '^quick$'
        run_pytest release "${PAIRS[@]}" -m quick
    else
        local either=$* labels='not long' targets
        [[ $ALL == 0 ]] || labels=''
        read -ra targets <<<"$(targets_for_patterns "$@")"
        build_stage release "${targets[@]}"
        run_ctest release -R "${either// /|}"
        run_pytest release -k "${either// / or }" -m "$labels"
    fi
}

# targets_for_patterns PATTERN...: prints the build targets for the tests with matching names.
targets_for_patterns() {
    local source target targets=(programs test-tools)
    while read -r target; do
        [[ -n $(lacks_cmocka) ]] || ! matches "$target" "$@" || targets+=("$target")
    done <<<"$(c_tests_named)"
    while read -r source; do
        [[ $source != */chaos/* && $source != */test_sim.py ]] || targets=(all)
    done <<<"$(python_files_of "$@")"
    echo "${targets[@]}"
}

# python_files_of PATTERN...: prints the Python test files that match by their name or by the name of a test.
python_files_of() {
    local file pattern
    while read -r file; do
        for pattern in "$@"; do
            if [[ $file == *"$pattern"* || $(grep '^def test' "$ROOT/$file") == *"$pattern"* ]]; then
                printf '%s\n' "$file"
                break
            fi
        done
    done <<<"$(cd "$ROOT" && find tests -name 'test_*.py' | sort)"
}

# groups_for_patterns PATTERN...: prints the groups of packages that these tests need. A test that needs qemu or
# valgrind counts only if a pattern matches its own name; otherwise it is skipped where these are missing.
groups_for_patterns() {
    local file pattern
    echo build check
    while read -r file; do
        [[ -n $file ]] || continue
        ! grep -qE 'torch|onnx_session|exported' "$ROOT/$file" || [[ $file != tests/parity/* ]] || echo parity
        [[ $file != tests/containers/* ]] || echo containers
        for pattern in "$@"; do
            awk -v name="$pattern" '/^@pytest.mark.qemu/ { qemu = 1 }
                /^def / { if (/^def test_/ && index($0, name) && !index(FILENAME, name)) {
                              if (qemu) print "qemu"
                              if ($0 ~ /valgrind/) print "valgrind" }
                          qemu = 0 }' "$ROOT/$file"
        done
    done <<<"$(python_files_of "$@")"
}

stage_asan() {
    build_stage asan
    export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
    export UBSAN_OPTIONS=print_stacktrace=1
    export LSAN_OPTIONS=suppressions=$ROOT/tests/tools/lsan.supp:print_suppressions=0
    run_ctest asan -L '^quick$' -LE '^numbers$'
    run_pytest asan "${PAIRS[@]}" -m asan
}

# TSan's shadow memory has a fixed address, so these tests run without address space randomization.
stage_tsan() {
    local words
    read -ra words <<<"$(build_of_stage tsan)"
    build_stage "${words[@]}"
    export TSAN_OPTIONS=suppressions=$ROOT/tests/tools/tsan.supp:history_size=4
    run_ctest tsan -L '^threads$'
    run_pytest tsan -m threads
}

stage_qemu() {
    local words
    read -ra words <<<"$(build_of_stage qemu)"
    build_stage "${words[@]}"
    build_quietly release programs
    run_ctest arm64 -L '^qemu$'
    run_pytest release -m qemu
}

stage_parity() { labelled parity "${PAIRS[@]}"; }
stage_sim() { labelled sim; }
stage_chaos() { labelled chaos "${PAIRS[@]}"; }
stage_soak() { labelled soak; }
stage_containers() { labelled containers; }
stage_long() { labelled long; }

# Each target is a test. New inputs are discarded, so that each run of the stage starts from the same ones.
stage_fuzz() {
    check "the fuzz build" build_quietly fuzz fuzz-targets
    nice python3 "$ROOT/tests/fuzz/fuzz.py" --seconds 6 --jobs 2 --cache "$RESULTS/fuzz" \
        --junit "$RESULTS/fuzz.xml" || true
}

# labelled LABEL ARGUMENTS...: runs the tests of a label in the release build; ARGUMENTS go to pytest.
labelled() {
    local label=$1
    shift
    build_quietly release || return 1
    run_ctest release -L "^$label\$"
    run_pytest release -m "$label" "$@"
}

# --- lint --------------------------------------------------------------------------------------

# own_sources PATTERN...: prints the paths of our own sources, tracked or new, relative to the root.
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

# clang-tidy of all sources takes longer than the stage allows. Changed files come first. A file that
# passed is skipped while it and its headers do not change. Files that do not fit into LINT_SECONDS are
# left for the next run, and reported.
lint_tidy() {
    local seconds=${LINT_SECONDS:-40} folder=$ROOT/.cache/tidy
    build_quietly release coppice-proto || return 1 # the generated headers
    mkdir -p "$folder"
    (cd "$ROOT" && python3 tests/tools/tidy.py --build build/release --cache "$folder" \
        --seconds "$seconds" --jobs "$(nproc)")
}

stage_lint() {
    check_with clang-format "clang-format (to fix: ./dev fmt)" lint_format
    check_with shellcheck "shellcheck" lint_shell
    check_with clang-tidy "clang-tidy" lint_tidy
}

# check_with PROGRAM NAME COMMAND...: like check, but skips the test if PROGRAM is missing.
check_with() {
    local lacking
    lacking=$(lacks_programs "$1")
    [[ $1 != clang-format || -n $lacking ]] || lacking=$(lacks_clang_format)
    shift
    if [[ -z $lacking ]]; then check "$@"; else skip 1 check "$lacking"; fi
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

# minutes SECONDS: prints minutes with one decimal.
minutes() { awk -v s="$1" 'BEGIN { printf "%.1f", s / 60 }'; }

# measure_cpu: sets CPU to the seconds of CPU time that ended children of this shell used. The engine's containers are
# not its children. (In a pipe, `times` would print the times of a subshell.)
measure_cpu() {
    times >"$RESULTS/times"
    CPU=$(awk -F '[ms ]+' 'NR == 2 { printf "%d\n", 60 * $1 + $2 + 60 * $3 + $4 }' "$RESULTS/times")
}

# stage_done STAGE SECONDS TESTS CPU_SECONDS: prints the summary of a stage; over its budget, it counts one more failure.
stage_done() {
    local budget
    budget=$(budget_of "$1")
    printf '== %-10s %s of %d min, %d tests, %s min of CPU time\n' "$1" "$(minutes "$2")" "$budget" "$3" \
        "$(minutes "$4")" | tee -a "$SUMMARY"
    if (($2 > budget * 60)); then
        printf 'FAILED: %s took longer than its budget\n' "$1" | tee -a "$SUMMARY"
        FAILED=$((FAILED + 1))
    fi
}

# tests_of_stage STAGE: prints the number of tests in this stage, counted in the sources.
tests_of_stage() {
    local label=$1 c=$1
    case $label in
        release) label=quick c=quick ;;
        asan)
            echo $(($(c_tests_of quick) - $(c_tests_of numbers) + $(python_tests_of asan)))
            return
            ;;
        tsan) label=threads c=threads ;;
        fuzz)
            find "$ROOT/tests/fuzz" -name 'fuzz_*.c' | wc -l
            return
            ;;
    esac
    echo $(($(c_tests_of "$c") + $(python_tests_of "$label")))
}

# count_tests: prints "PASSED FAILED SKIPPED" of the JUnit files.
count_tests() {
    if command -v python3 >/dev/null; then
        python3 "$ROOT/tests/tools/count.py" "$RESULTS"/*.xml
    else # without Python there are only C tests; count programs
        awk '/<testcase /{ all++ } /<testcase .*status="fail"/{ bad++ } /<testcase .*status="(notrun|disabled)"/{ not++ }
            END { print all - bad - not, bad + 0, not + 0 }' "$RESULTS"/*.xml
    fi
}

# run_stage STAGE PATTERN...: runs a stage, and adds its tests to the counts.
run_stage() {
    local stage=$1 started=$SECONDS before=$((PASSED + FAILED)) computed passed failed skipped lacking
    measure_cpu
    computed=$CPU
    shift
    printf '== %s\n' "$stage"
    rm -f "$RESULTS"/*.xml
    lacking=$(lacks_for_stage "$stage")
    if [[ -n $lacking ]]; then
        skip "$(tests_of_stage "$stage")" "tests of the stage $stage" "$lacking"
    else
        "stage_$stage" "$@" || check "stage $stage ran to the end" false
    fi
    if compgen -G "$RESULTS/*.xml" >/dev/null; then
        read -r passed failed skipped <<<"$(count_tests)"
        PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
    fi
    measure_cpu
    stage_done "$stage" $((SECONDS - started)) $((PASSED + FAILED - before)) $((CPU - computed))
}

# run_beside STAGE...: runs these stages in sequence in a background process, each with its own counts and
# folder of results. collect_beside STAGE waits for a stage, prints its output and adds its counts.
declare -gA BESIDE=()
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
        check "stage $1 ran to the end" false
    fi
}

# run_stages STAGE...: runs stages in this order. After the release stage, those of WAITING run in parallel with the
# others.
run_stages() {
    local stage row named waiting=() computing=()
    [[ $# -gt 1 ]] || WAITING=()
    for stage in "$@"; do
        [[ " ${WAITING[*]} " == *" $stage "* ]] || computing+=("$stage")
    done
    if [[ ${computing[0]:-} == release ]]; then
        run_stage release
        computing=("${computing[@]:1}")
    fi
    for row in "${WAITING[@]}"; do
        named=()
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

# groups_for_test ARGUMENTS...: prints the groups of packages for `./dev test ARGUMENTS...`, in the order of EVERYTHING.
groups_for_test() {
    local word group groups patterns=()
    if [[ -z ${*//--all/} ]]; then
        echo "$EVERYTHING"
        return
    fi
    groups=$(for word in "$@"; do
        [[ " $STAGE_NAMES " != *" $(stage_named "$word") "* ]] || groups_of_stage "$(stage_named "$word")"
    done)
    for word in "$@"; do
        [[ $word == -* || " $STAGE_NAMES " == *" $(stage_named "$word") "* ]] || patterns+=("$word")
    done
    [[ ${#patterns[@]} == 0 ]] || groups+=" $(groups_for_patterns "${patterns[@]}")"
    for group in $EVERYTHING; do
        [[ " ${groups//$'\n'/ } " != *" $group "* ]] || printf '%s\n' "$group"
    done | paste -sd ' '
}

# stage_named WORD: prints the stage if WORD is the label of its tests, otherwise WORD.
stage_named() {
    case $1 in
        quick) echo release ;;
        threads) echo tsan ;;
        *) echo "$1" ;;
    esac
}

# enter_test ARGUMENTS...: like `enter`, and passes the time for making the environment to the inner run.
enter_test() {
    local started=$SECONDS groups
    read -ra groups <<<"$(groups_for_test "$@")"
    environment_choose "${groups[@]}"
    export COPPICE_DEV_IMAGE_SECONDS=${COPPICE_DEV_IMAGE_SECONDS:-$((SECONDS - started))}
    environment_is_here || inside "$ROOT/dev" test "$@"
}

dev_test() {
    local name stages=() patterns=()
    for name in "$@"; do
        case $name in
            --all) ALL=1 ;;
            -*) die "test takes only --all and names of stages or tests." ;;
            *)
                if [[ " $STAGE_NAMES " == *" $(stage_named "$name") "* ]]; then
                    stages+=("$(stage_named "$name")")
                else
                    patterns+=("$name")
                fi
                ;;
        esac
    done
    if [[ ${#stages[@]} == 0 && ${#patterns[@]} == 0 ]]; then
        stages=(release asan qemu tsan fuzz parity sim chaos soak containers lint)
        [[ $ALL == 0 ]] || stages+=(long)
    fi
    mkdir -p "$RESULTS"
    rm -rf "${RESULTS:?}"/*
    programs_on_path
    # In the image with all packages, a test with a missing dependency fails.
    [[ $ENVIRONMENT != *-test:* ]] || export COPPICE_TEST_COMPLETE=1
    stage_done image "${COPPICE_DEV_IMAGE_SECONDS:-0}" 0 0
    LATER=("${stages[@]}")
    run_stages "${stages[@]}"
    if [[ ${#patterns[@]} -gt 0 ]]; then
        run_stage release "${patterns[@]}"
    fi
    if ((PASSED + FAILED + SKIPPED == 0)); then
        printf 'FAILED: no test name contains: %s\n' "${patterns[*]}"
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
