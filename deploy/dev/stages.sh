# shellcheck shell=bash
# What ./dev test, lint and fmt do. Sourced by ./dev.
#
# A stage is a function stage_NAME [PATTERN...]: it builds what it needs and runs its tests, leaves
# JUnit files of them in $RESULTS, calls `check` for tests that are plain commands (a build, a lint).

# One table: stage, minutes it may take on 2 cores, what it does. Over budget is a failure.
STAGES='
image      10   the container image, where there is none, and first builds beside that
release    12   release build, quick tests
parity      7   tests against PyTorch and ONNX Runtime
asan       14   build with ASan and UBSan, quick tests
tsan        4   build with TSan, tests of threads
qemu       12   build for arm64, tests under qemu
sim        10   the installation in virtual time: thousands of seeds, planted bugs
chaos      12   seeded faults at real processes
soak        9   jobs without end, workers that die all the time
containers 25   tests that start containers of their own
fuzz       12   each fuzz target for 12 seconds
lint        6   clang-format, clang-tidy, shellcheck
long       40   long tests (only with --all)
'
STAGE_NAMES=$(awk '$1 != "image" { print $1 }' <<<"$STAGES" | xargs)
# Stages that wait more than they compute, those of a row one after the other: each row runs beside
# the other one and beside those of COMPUTING, which are as nice as can be, after all others.
WAITING=("containers" "chaos soak")
COMPUTING=(qemu sim fuzz lint)

# groups_of_stage STAGE: the groups of packages (deploy/packages.sh) that its tests need.
groups_of_stage() {
    case $1 in
        parity | qemu | containers) printf 'build check %s\n' "$1" ;;
        tsan) echo build check valgrind ;;
        fuzz | lint) echo build check clang ;;
        long) echo "$EVERYTHING" ;;
        *) echo build check ;;
    esac
}

# lacks_for_stage STAGE: what is missing here without which none of its tests can run, a line each.
lacks_for_stage() {
    case $1 in
        parity) lacks_modules torch ;;
        asan) [[ -e /proc/self/maps ]] || echo /proc ;;
        tsan) setarch -R true 2>/dev/null || echo "the right to switch off address space randomization" ;;
        qemu) lacks qemu ;;
        containers) docker version >/dev/null 2>&1 || echo "a container engine that answers" ;;
        fuzz) lacks_programs clang python3 ;;
    esac
}

PASSED=0 FAILED=0 SKIPPED=0
ALL=0 # --all was given
LATER=() # stages that follow the release stage
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

# skip COUNT WHAT MISSING: tests that are not run, because something is missing.
skip() {
    [[ $1 -gt 0 ]] || return 0
    printf 'SKIPPED: %d %s: %s is not here\n' "$1" "$2" "$(paste -sd , <<<"$3" | sed 's/,/, /g')" | tee -a "$SUMMARY"
    SKIPPED=$((SKIPPED + $1))
}

# c_tests_of LABEL, python_tests_of LABEL: how many there are, by their sources.
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

# c_tests_named: the names of all programs of C tests.
c_tests_named() { find "$ROOT"/tests/{unit,conformance} -name 'test_*.c' | sed -E 's|.*/([^/]+)/([^/]+)\.c$|\1_\2|'; }

# python_tests_named "PATTERN or PATTERN...": how many have one in their name or their file's.
python_tests_named() {
    (cd "$ROOT" && find tests -name 'test_*.py' -exec grep -H '^def test_' {} +) | grep -cE -- "${1// or /|}" || true
}

# run_ctest PRESET ARGUMENTS...: the C tests of a build.
run_ctest() {
    local preset=$1 name wrapper=() lacking
    shift
    lacking=$(lacks_cmocka)
    if [[ -n $lacking ]]; then
        if [[ $1 == -L ]]; then
            skip "$(c_tests_of "${2//[^a-z]/}")" "programs of C tests" "$lacking"
        else
            skip "$(c_tests_named | grep -cE -- "$2" || true)" "programs of C tests" "$lacking"
        fi
        return 0
    fi
    [[ $preset != tsan ]] || wrapper=(setarch -R)
    name=$RESULTS/ctest-$preset-$RANDOM.xml
    "${wrapper[@]}" ctest --test-dir "$ROOT/build/$preset" --output-on-failure -j "$(nproc)" --no-tests=ignore \
        --test-output-size-passed 1000000 --test-output-size-failed 1000000 \
        --output-junit "$name" "$@" | sed '/^Internal ctest changing/d' || true
}

# run_pytest PRESET ARGUMENTS...: the Python tests, on the programs of a build.
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

# Two tests at a time: most of them wait, or compute on one core.
PAIRS=(-n 2 --dist load --maxschedchunk 1)
[[ -z $(lacks_modules xdist) ]] || PAIRS=()

# build_stage PRESET TARGET...: a build that fails is one failed test; the tests of what was built run all
# the same.
build_stage() {
    check "the $1 build" build_all "$@"
}
build_all() {
    local preset=$1 lock status=0
    shift
    mkdir -p "$ROOT/build/$preset"
    exec {lock}>"$ROOT/build/$preset/.lock" # of build_quietly: a build ahead may be at work
    flock "$lock"
    configure "$preset" && ninja -C "$ROOT/build/$preset" --quiet -k 0 "$@" || status=$?
    exec {lock}>&-
    return "$status"
}

# build_of_stage STAGE: the preset and the targets that it builds.
build_of_stage() {
    case $1 in
        asan) echo asan ;;
        tsan) echo tsan programs tests-threads ;;
        fuzz) echo fuzz fuzz-targets ;;
        qemu) echo arm64 programs tests-qemu ;;
    esac
}

# build_ahead STAGE...: builds what these stages need with the time that the tests before them leave. Each
# stage builds again, which takes no time then, and reports the errors.
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

# targets_for_patterns PATTERN...: what is built for the tests with these names.
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

# python_files_of PATTERN...: files of Python tests with one of these names, or in which a test has one.
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

# groups_for_patterns PATTERN...: the groups of packages that these tests need. A test of a stage of its own (qemu,
# valgrind) counts only where its own name is asked for; else it runs where its things are, and is skipped elsewhere.
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
    run_ctest asan -L '^quick$'
    run_pytest asan "${PAIRS[@]}" -m asan
}

# Without address space randomization: TSan's shadow memory has a fixed place.
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

# Each target is a test. The inputs that it finds are thrown away: a stage begins with the same ones.
stage_fuzz() {
    check "the fuzz build" build_quietly fuzz fuzz-targets
    nice python3 "$ROOT/tests/fuzz/fuzz.py" --seconds 12 --jobs 2 --cache "$RESULTS/fuzz" \
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
    check_with clang-format "clang-format (./dev fmt mends it)" lint_format
    check_with shellcheck "shellcheck" lint_shell
    check_with clang-tidy "clang-tidy" lint_tidy
}

# check_with PROGRAM NAME COMMAND...: as check, where that program is here.
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

# tests_of_stage STAGE: how many tests are not run where the stage is not, by the sources.
tests_of_stage() {
    local label=$1 c=$1
    case $label in
        release) label=quick c=quick ;;
        asan) c=quick ;;
        tsan) label=threads c=threads ;;
        fuzz)
            find "$ROOT/tests/fuzz" -name 'fuzz_*.c' | wc -l
            return
            ;;
    esac
    echo $(($(c_tests_of "$c") + $(python_tests_of "$label")))
}

# count_tests: "PASSED FAILED SKIPPED" of the JUnit files.
count_tests() {
    if command -v python3 >/dev/null; then
        python3 "$ROOT/tests/tools/count.py" "$RESULTS"/*.xml
    else # programs of C tests, then
        awk '/<testcase /{ all++ } /<testcase .*status="fail"/{ bad++ } /<testcase .*status="(notrun|disabled)"/{ not++ }
            END { print all - bad - not, bad + 0, not + 0 }' "$RESULTS"/*.xml
    fi
}

# run_stage STAGE PATTERN...
run_stage() {
    local stage=$1 started=$SECONDS before=$((PASSED + FAILED)) passed failed skipped lacking
    shift
    printf '== %s\n' "$stage"
    rm -f "$RESULTS"/*.xml
    lacking=$(lacks_for_stage "$stage")
    if [[ -n $lacking ]]; then
        skip "$(tests_of_stage "$stage")" "tests of the stage $stage" "$lacking"
    else
        "stage_$stage" "$@" || check "stage $stage ran to its end" false
    fi
    if compgen -G "$RESULTS/*.xml" >/dev/null; then
        read -r passed failed skipped <<<"$(count_tests)"
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

# groups_for_test ARGUMENTS...: the groups of packages for `./dev test ARGUMENTS...`, in the order of EVERYTHING.
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

# stage_named WORD: the stage, where WORD is the label of its tests.
stage_named() {
    case $1 in
        quick) echo release ;;
        threads) echo tsan ;;
        *) echo "$1" ;;
    esac
}

# enter_test ARGUMENTS...: as `enter`, and tells the inner run how long the environment took.
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
            -*) die "test takes --all and names of stages or tests." ;;
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
        # Fuzzing first beside those that wait: it takes the same time on a busy machine.
        stages=(release parity asan tsan fuzz qemu sim chaos soak containers lint)
        [[ $ALL == 0 ]] || stages+=(long)
    fi
    mkdir -p "$RESULTS"
    rm -rf "${RESULTS:?}"/*
    programs_on_path
    # Where ./dev has installed everything, a test that misses something fails.
    [[ $ENVIRONMENT != *-test:* ]] || export COPPICE_TEST_COMPLETE=1
    stage_done image "${COPPICE_DEV_IMAGE_SECONDS:-0}" 0
    LATER=("${stages[@]}")
    run_stages "${stages[@]}"
    if [[ ${#patterns[@]} -gt 0 ]]; then
        run_stage release "${patterns[@]}"
    fi
    if ((PASSED + FAILED + SKIPPED == 0)); then
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
