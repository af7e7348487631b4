"""Checks the rules of the source tree: directions of includes, sizes, documents that name existing things, nothing generated or
specific to one workplace."""

import ast
import json
import pathlib
import re
import subprocess

import needs
import pytest

BASE = {"base"}
COMMON = {"base", "kernels", "nn", "ensemble", "interchange", "data", "wire", "job", "net", "proto"}

# Folder -> folders that its files may include, besides their own. A program uses another only
# where it embeds it: `coppice run` is a coordinator and workers in one process.
MAY_INCLUDE = {
    "base": set(),
    "kernels": BASE,
    "nn": BASE | {"kernels"},
    "ensemble": BASE | {"kernels", "nn"},
    "interchange": BASE | {"kernels", "nn", "wire", "proto"},
    "data": BASE,
    "proto": set(),
    "wire": BASE | {"proto"},
    "net": BASE | {"wire", "proto"},
    "job": BASE | {"kernels", "nn", "ensemble", "interchange", "data", "wire", "proto"},
    "coordinator": COMMON,
    "coordinator/core": BASE,
    "coordinator/store": COMMON | {"coordinator", "coordinator/core"},
    "coordinator/engine": COMMON | {"coordinator", "coordinator/core", "coordinator/store"},
    "coordinator/api": COMMON | {"coordinator", "coordinator/core", "coordinator/store", "coordinator/engine"},
    "coordinator/server": COMMON | {"coordinator", "coordinator/core", "coordinator/store", "coordinator/engine", "coordinator/api"},
    "worker": COMMON,
    "client": COMMON | {"coordinator", "worker"},
}
LONGEST_FUNCTION = 100

# The same within client/. Each folder may also include the files directly in client/.
CLIENT_MAY_INCLUDE = {
    "": set(),
    "terminal": set(),
    "remote": {"terminal"},
    "load": {"terminal", "remote"},
    "draw": {"terminal"},
    "evaluate": {"terminal", "remote", "load", "draw"},
    "measure": {"terminal", "load"},
    "commands": {"terminal", "remote", "load", "draw", "evaluate", "measure"},
}

# Every document may name only existing paths.
ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in
                   [*ROOT.glob("*.md"), *(path for top in ("docs", "common", "client", "coordinator", "worker") for path in ROOT.glob(f"{top}/**/*.md"))])
PATH = re.compile(r"`((?:common|coordinator|worker|client|proto|tests|docs|examples|bench|cmake|deploy)/[\w./-]+)`")


@pytest.fixture(scope="module")
def tracked(root):
    """Existing files under version control."""
    done = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
    return [path for path in done.stdout.splitlines() if (root / path).is_file()]


def folder_of(path):
    """common/nn/x.c: nn; coordinator/core/x.c: coordinator/core; coordinator/x.h: coordinator; client/commands/x.c: client."""
    parts = path.split("/")
    if len(parts) == 2 or parts[0] not in {"common", "coordinator"}:
        return parts[0]
    return parts[1] if parts[0] == "common" else "/".join(parts[:2])


def sources(tracked, *ends):
    return [path for path in tracked if path.endswith(ends) and folder_of(path) in MAY_INCLUDE]


def test_only_the_client_draws_and_downloads(root, tracked):
    """This keeps cairo and curl out of coordinator and worker."""
    users = {path for path in sources(tracked, ".c", ".h") if re.search(r"#\s*include <(cairo|curl)", (root / path).read_text())}
    assert {path.split("/")[0] for path in users} == {"client"}
    linked = [path for path in tracked if path.endswith("CMakeLists.txt") and re.search("CAIRO|CURL", (root / path).read_text())]
    assert linked == ["client/CMakeLists.txt"]


def test_each_folder_of_common_is_a_library_with_a_rule(root, tracked):
    """The folders are flat: only nn has a subfolder, for its layers."""
    folders = {path.rsplit("/", 1)[0] for path in tracked if re.fullmatch(r"common/.+\.(c|h|inc)", path)}
    assert folders == {f"common/{name}" for name in COMMON - {"proto"}} | {"common/nn/layers"}
    assert all((root / f"common/{name}/CMakeLists.txt").is_file() for name in COMMON - {"proto"})


def test_folders_include_only_allowed_folders(root, tracked):
    wrong = []
    for path in sources(tracked, ".c", ".h", ".inc"):
        own = folder_of(path)
        for name in re.findall(r'^#\s*include "([^"]+)"', (root / path).read_text(), re.MULTILINE):
            used = folder_of(name) if "/" in name else own
            if used not in MAY_INCLUDE[own] | {own, "common"}:
                wrong.append(f"{path} includes {name}: {own} may include {sorted(MAY_INCLUDE[own])} only")
    assert not wrong, "\n".join(wrong)


def test_no_folder_is_in_an_include_cycle(root, tracked):
    uses = {}
    for path in sources(tracked, ".c", ".h", ".inc"):
        own = path.rsplit("/", 1)[0]
        found = {name.rsplit("/", 1)[0] for name in re.findall(r'^#\s*include "([^"]+/[^"]+)"', (root / path).read_text(), re.MULTILINE)}
        uses[own] = uses.get(own, set()) | (found - {own})

    def reached(folder, seen):
        for name in uses.get(folder, set()) - seen:
            seen.add(name)
            reached(name, seen)
        return seen

    assert [folder for folder in uses if folder in reached(folder, set())] == []


def test_each_folder_has_a_readme(root, tracked):
    """The README explains what belongs here, what it may include, who calls it, and where to start, on one screen."""
    folders = {path.rsplit("/", 1)[0] for path in tracked if re.fullmatch(r"(common|client|worker)/.+\.[ch]", path)} | {"common"}
    for folder in folders:
        lines = (root / folder / "README.md").read_text().splitlines()
        assert lines[0] == f"# {folder}" and len(lines) <= 30, folder
        assert all(any(f"**{word}" in line for line in lines) for word in ("Start", "Called by")), folder


def test_client_folders_include_only_allowed_folders(root, tracked):
    """No command includes another; code that two commands share has its own folder."""
    files = {path: path.split("/")[1] if path.count("/") > 1 else "" for path in tracked if re.fullmatch(r"client/.+\.[ch]", path)}
    assert set(files.values()) == set(CLIENT_MAY_INCLUDE)
    wrong = [f"{path} includes {name}" for path, own in files.items()
             for name in re.findall(r'^#\s*include "(client/[^"]+)"', (root / path).read_text(), re.MULTILINE)
             if files[name] not in CLIENT_MAY_INCLUDE[own] | {own, ""} or own == files[name] == "commands"]
    assert not wrong, "\n".join(wrong)


# Headers that decision code may include: none that gives access to a clock, a file, a thread, a socket or the log.
PURE = {"assert", "stdarg", "stdbool", "stddef", "stdint", "stdio", "stdlib", "string", "math", "inttypes"}
PURE_BASE = {"alloc", "bytes", "err", "hash", "injected_bugs", "limits", "shards", "saturate"}
CORES = {"coordinator/core": r"coordinator/core/\w+\.[ch]", "worker/agent": r"worker/agent\w*\.[ch]"}
CONTACT = re.compile(r"\b(fopen|fread|fwrite|fprintf|printf|puts|fputs|remove|rename|tmpfile|getenv|system|exit|rand|srand)\s*\(")


@pytest.mark.parametrize("core", CORES)
def test_decision_cores_do_no_io(root, tracked, core):
    """Decision code is step(state, event, now), and uses no clock, loop, network, database, file or thread."""
    files = [path for path in tracked if re.fullmatch(CORES[core], path)]
    assert any(path.endswith(".c") for path in files)
    wrong = []
    for path in files:
        text = (root / path).read_text()
        wrong += [f"{path} includes <{name}>" for name in re.findall(r"^#\s*include <([^>]+)>", text, re.MULTILINE)
                  if name.removesuffix(".h") not in PURE]
        wrong += [f"{path} includes {name}" for name in re.findall(r'^#\s*include "common/([^"]+)"', text, re.MULTILINE)
                  if name not in {f"base/{header}.h" for header in PURE_BASE}]
        wrong += [f"{path} calls {match.group(1)}" for match in CONTACT.finditer(text)]
    assert not wrong, "\n".join(wrong)


def test_no_function_is_long(root, tracked):
    files = [path for path in tracked if path.endswith((".c", ".inc"))]
    done = subprocess.run(
        ["ctags", "--output-format=json", "--map-C=+.inc", "--languages=C", "--fields=+ne", "--kinds-C=f", "-f", "-", *files],
        cwd=root, capture_output=True, text=True, check=True,
    )
    tags = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tags) > 100
    long = [f"{tag['path']}:{tag['line']} {tag['name']}: {tag['end'] - tag['line'] + 1} lines"
            for tag in tags if tag.get("end", tag["line"]) - tag["line"] + 1 > LONGEST_FUNCTION]
    assert not long, "\n".join(long)


def test_every_source_starts_with_a_comment(root, tracked):
    silent = [path for path in sources(tracked, ".c", ".h") if not (root / path).read_text().lstrip().startswith("/*")]
    assert not silent, "no opening comment: " + ", ".join(silent)


def test_only_alloc_c_allocates_memory(root, tracked):
    allocation = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|free|strdup|strndup|asprintf)\s*\(")
    found = []
    for path in sources(tracked, ".c"):
        if path == "common/base/alloc.c":
            continue
        text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', "", (root / path).read_text(), flags=re.DOTALL)
        found += [f"{path}: {name.group(1)}" for name in allocation.finditer(text)]
    assert not found, "\n".join(found)


def test_out_of_memory_message_has_one_source(root, tracked):
    """Code calls cop_no_memory(error), unless its message names the purpose of the memory."""
    found = [path for path in sources(tracked, ".c", ".h") if re.search(r'cop_fail\([^;]*COP_ERR_NO_MEMORY,\s*"out of memory"\)', (root / path).read_text())]
    assert not found, "\n".join(found)


def test_no_text_is_appended_by_the_result_of_snprintf(root, tracked):
    """snprintf returns the length that it wanted, which may exceed the buffer; cop_text_append stays within the buffer."""
    found = [f"{path}: {line.strip()}" for path in sources(tracked, ".c", ".h") for line in (root / path).read_text().splitlines()
             if re.search(r"\+= (\(size_t\))?v?snprintf\(", line)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", sorted(folder for folder in MAY_INCLUDE if folder.startswith("coordinator")))
def test_each_coordinator_readme_names_all_sources(root, folder):
    """The README names every source file of the folder, so a new file needs a line."""
    text = (root / folder / "README.md").read_text()
    assert len(text.splitlines()) <= 30
    unnamed = [path.name for path in sorted((root / folder).glob("*.c")) if path.name not in text]
    assert not unnamed, f"{folder}/README.md does not name {unnamed}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_existing_paths(root, document):
    named = {path.rstrip("/.") for path in PATH.findall((root / document).read_text())}
    missing = sorted(path for path in named if not (root / path).exists() and not list(root.glob(path + ".*")))
    assert not missing, f"{document} names what is not there: {missing}"


def anchor(heading):
    """The anchor of a heading in a link, by GitHub's rule."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_existing_files_and_headings(root, document):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", (root / document).read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (root / document).parent / name if name else root / document
        if not file.exists():
            wrong.append(target)
        elif heading and heading not in {anchor(line) for line in re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)}:
            wrong.append(target)
    assert not wrong, f"{document} links to what does not exist: {wrong}"


def test_tests_named_in_documents_exist(root, tracked):
    """Each promise names its test. (In docs/reference, `test_error` is a figure.)"""
    names = set()
    for path in tracked:
        if path.startswith("tests/") and path.endswith((".c", ".py")):
            names |= {pathlib.Path(path).stem, *re.findall(r"^(?:def|static void) (test_\w+)\(", (root / path).read_text(), re.MULTILINE)}
    assert "test_tests_named_in_documents_exist" in names
    quoted = re.compile(r"`(?:\./dev test )?(test_\w+)(?:\.py|\.c)?`")
    documents = [document for document in DOCUMENTS if not document.startswith("docs/reference/")]
    missing = [f"{document}: {name}" for document in documents for name in quoted.findall((root / document).read_text()) if name not in names]
    assert not missing, "\n".join(missing)


def test_comments_and_messages_name_only_existing_documents(root, tracked):
    wrong = []
    for path in tracked:
        try:
            text = (root / path).read_text()
        except UnicodeDecodeError:
            continue
        names = set(re.findall(r"\bdocs/[\w/-]+\.md\b", text))
        wrong += [f"{path}: {name}" for name in sorted(names) if not (root / name).is_file()]
    assert not wrong, "\n".join(wrong)


def test_cited_rules_of_the_arithmetic_are_defined(root, tracked):
    defined = set(re.findall(r"^\| (D\d+) \|", (root / "docs/reference/portable-1.md").read_text(), re.MULTILINE))
    cited = {}
    for path in tracked:
        if path.endswith((".c", ".h", ".inc", ".md", ".py", ".cmake", ".proto")):
            cited |= {rule: path for rule in re.findall(r"\b(?:rules?|\() ?(D\d{1,2})\b|\b(D\d{1,2})'s\b", (root / path).read_text()) for rule in rule if rule}
    assert {"D3", "D4", "D5"} <= set(cited) <= defined, {rule: path for rule, path in cited.items() if rule not in defined}


def symbols(path, *options):
    done = subprocess.run(["nm", "-P", *options, path], capture_output=True, text=True, check=True)
    return {line.split()[0].split("@")[0] for line in done.stdout.splitlines() if line and not line.endswith(":")}


def test_coordinator_libraries_use_no_symbols_of_higher_ones(program):
    """No folder uses a symbol of a higher folder, however it is declared."""
    folder = pathlib.Path(program("coppice")).parents[1] / "coordinator"
    archives = [folder / f"libcoppice-coordinator{name}.a" for name in ("-core", "-store", "-engine", "-api", "")]
    defined = [symbols(archive, "-g", "--defined-only") for archive in archives]
    assert all(len(names) > 3 for names in defined)
    for i, archive in enumerate(archives):
        up = symbols(archive, "-u") & set().union(*defined[i + 1:])
        assert not up, f"{archive.name} needs {sorted(up)}"


@pytest.mark.parametrize("library", ["base", "kernels", "nn", "ensemble"])
def test_libraries_use_only_sqrt_and_fma_of_libm(program, library):
    """Rule D4: no result of a library function enters a weight. The list of functions comes from libm itself."""
    archive = pathlib.Path(program("coppice")).parents[1] / f"common/{library}/libcoppice-{library}.a"
    libm = next(line.split()[2] for line in subprocess.run(["ldd", program("coppice")], capture_output=True, text=True, check=True).stdout.splitlines()
                if "libm.so" in line)
    functions = symbols(libm, "-D", "--defined-only")
    assert {"expf", "sin", "sqrt", "fmaf", "roundf"} <= functions
    used = symbols(archive, "-u")
    assert len(used) > 10
    assert used & functions <= {"sqrt", "sqrtf", "fma", "fmaf"}


def test_no_code_compares_names_of_layer_kinds(root, tracked, layer_kinds):
    """A new kind needs no other code, because only the registry compares names of kinds."""
    compared = re.compile(r"\w*cmp\w*\([^;{]*\"(" + "|".join(layer_kinds) + r")\"")
    found = [f"{path}: {match.group(0)}" for path in sources(tracked, ".c", ".h")
             for match in compared.finditer((root / path).read_text())]
    assert not found, "\n".join(found)


def test_each_layer_has_its_row_and_section(root, layer_kinds):
    text = (root / "docs/reference/layers.md").read_text()
    assert re.findall(r"^\| \[`(\w+)`\]", text, re.MULTILINE) == layer_kinds, "the table, in the registry's order"
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == layer_kinds, "the sections, in the registry's order"


def test_version_has_one_source(root, tracked, program):
    """CMakeLists.txt has the version. The Kubernetes image tag, which cannot read it, and the newest entry of the change log must agree."""
    (version,) = re.findall(r"^project\(coppice VERSION (\S+)", (root / "CMakeLists.txt").read_text(), re.MULTILINE)
    for name in ("coppice", "coppice-coordinator", "coppice-worker"):
        done = subprocess.run([program(name), "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.split()[1] == version, name
    assert re.findall(r"newTag: (\S+)", (root / "deploy/kubernetes/kustomization.yaml").read_text()) == [version]
    assert re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version
    literal = re.compile(rf"(?<![\w.]){re.escape(version)}(?![\w.])")
    copies = [path for path in sources(tracked, ".c", ".h", ".in") if literal.search((root / path).read_text())]
    assert not copies, f"a copy of the version {version}: {copies}"


def test_no_generated_file_is_tracked(tracked):
    generated = re.compile(r"(^|/)(build|runs|\.cache|__pycache__)/|\.pb-c\.[ch]$|\.(o|a|so|pyc|orig|rej|swp|sqlite|log)$")
    assert not [path for path in tracked if generated.search(path)]


def test_no_file_depends_on_a_workplace(root, tracked):
    """Files contain no package hosts and no absolute paths of a developer's machine, so a clone builds anywhere."""
    host = r"\b(deb|ftp\w*|security|archive|ports|snapshot|httpredir)\.(debian|ubuntu)\.(org|com|net)"
    local = r"(?<![\w.])/(home/\w\w+|work|Users)/"
    found = []
    for path in tracked:
        try:
            text = (root / path).read_text()
        except UnicodeDecodeError:
            continue
        if path == "tests/integration/test_tree.py":
            continue
        found += [f"{path}: {match.group(0)}" for match in re.finditer(f"{host}|{local}", text)]
    assert not found, "\n".join(found)


def test_scripts_are_executable(root, tracked):
    for path in tracked:
        first = (root / path).open("rb").readline()
        if first.startswith(b"#!") and not path.startswith("tests/integration/"):
            assert (root / path).stat().st_mode & 0o100, f"{path} has a #! line and is not executable"


def test_dev_help_matches_its_commands_and_stages(root):
    """`./dev help` names exactly the commands that ./dev has, and the stages in its table."""
    text = (root / "dev").read_text()
    usage, choice = text.split("USAGE")[1], text[text.index("    case $command in"):]
    named = set(re.findall(r"^  (\w+) ", usage.split("examples:")[0], re.MULTILINE))
    taken = set(re.findall(r"\b\w+\b", " ".join(re.findall(r"^        ([\w |]+)\)", choice, re.MULTILINE))))
    assert {"test", "soak", "fuzz"} <= named == taken
    stages = set(re.search(r"Stages: ([\w\s]+)", usage).group(1).split("\n  sim")[0].split())
    table = (root / "deploy/dev/stages.sh").read_text().split("STAGES='")[1].split("'")[0]
    assert stages == {line.split()[0] for line in table.strip().splitlines()} - {"image"}


def imported_at_once(tree):
    """Yields the modules that a file imports when it is imported, without those imported inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imported_at_once(node)


@pytest.mark.parametrize("line, name", [
    ("import torch", "torch"), ("from safetensors.torch import load_file", "safetensors.torch.load_file"),
    ("try:\n    import onnx\nexcept ImportError:\n    pass", "onnx"), ("def f():\n    import onnx", None),
])
def test_import_at_the_top_of_a_file_is_detected(line, name):
    assert list(imported_at_once(ast.parse(line))) == ([name] if name else [])


def test_no_test_file_imports_a_heavy_module_at_the_top(root, tracked):
    """So tests run on machines without these modules, and collecting tests is fast (tests/needs.py)."""
    files = [path for path in tracked if path.startswith("tests/") and path.endswith(".py")]
    assert "tests/parity/test_training.py" in files
    wrong = [
        f"{path} imports {name}: tests/needs.py has it" for path in files for name in imported_at_once(ast.parse((root / path).read_text()))
        if set(name.split(".")) & set(needs.MODULES)
        and not name.startswith("needs.")
    ]
    assert not wrong, "\n".join(wrong)
