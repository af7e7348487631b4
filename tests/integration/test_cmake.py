"""CMake without ./dev: it reports what it does not build and why, and can build nng from its sources."""

import subprocess

import pytest

# A stand-in for nng's sources: provides this system's library under the target name of nng's own build.
STAND_IN = """
if(BUILD_SHARED_LIBS OR NNG_TESTS)
  message(FATAL_ERROR "nng is built static, and without its tests")
endif()
get_directory_property(options COMPILE_OPTIONS)
if(options)
  message(FATAL_ERROR "Coppice's warnings are not for nng: ${options}")
endif()
find_library(SYSTEMS_NNG nng REQUIRED)
add_library(nng INTERFACE)
target_link_libraries(nng INTERFACE ${SYSTEMS_NNG})
message(STATUS "the stand-in is used")
"""


@pytest.fixture
def configure(root, tmp_path):
    """configure(*options): runs plain `cmake`, without ./dev; returns the finished process."""

    def call(*options):
        return subprocess.run(["cmake", "-S", root, "-B", tmp_path / "build", *options], capture_output=True, text=True, timeout=240, check=False)

    return call


@pytest.fixture
def sources(tmp_path):
    """sources(version): makes a folder that looks like nng's sources of that version; returns the CMake option for it."""

    def make(version):
        header = tmp_path / "nng/include/nng/nng.h"
        header.parent.mkdir(parents=True)
        names = zip(("MAJOR", "MINOR", "PATCH"), version.split("."))
        header.write_text("".join(f"#define NNG_{name}_VERSION {number}\n" for name, number in names))
        (tmp_path / "nng/CMakeLists.txt").write_text(STAND_IN)
        return f"-DCOPPICE_NNG_SOURCE={tmp_path / 'nng'}"

    return make


@pytest.mark.parametrize("generator", ["Ninja", "Unix Makefiles"])
def test_plain_cmake_reports_what_is_not_built(configure, generator):
    done = configure("-G", generator, "-DCMAKE_DISABLE_FIND_PACKAGE_cmocka=ON", "-DCMOCKA_LIBRARY=")
    assert "Not built: unit tests, because cmocka is missing (Debian package: libcmocka-dev)" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_nng_is_built_from_its_sources(configure, sources):
    done = configure("-G", "Ninja", sources("1.11.0"))
    assert done.returncode == 0, done.stderr
    assert "the stand-in is used" in done.stdout and "nng 1.11.0 is built from " in done.stdout


def test_nng_sources_of_another_release_are_refused(configure, sources):
    done = configure("-G", "Ninja", sources("1.5.2"))
    assert done.returncode != 0 and "has nng 1.5.2, expected 1.11.0" in " ".join(done.stderr.split()), done.stderr


def test_a_folder_without_nng_sources_is_reported(configure, tmp_path):
    done = configure("-G", "Ninja", f"-DCOPPICE_NNG_SOURCE={tmp_path}")
    assert done.returncode != 0 and "expected" not in done.stderr and "nng/nng.h" in done.stderr


def test_warnings_of_an_unknown_compiler_do_not_end_a_plain_build(configure, tmp_path):
    """GCC 12 warns where GCC 14 does not; only ./dev, which knows its compiler, makes warnings errors."""
    done = configure("-G", "Ninja", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "build/compile_commands.json").read_text()
    assert "-Wextra" in commands and "-Werror" not in commands
