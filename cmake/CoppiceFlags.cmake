# Compiler flags of the whole tree. -ffp-contract=off is part of the arithmetic contract (docs/reference/portable-1.md, D4).
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_C_FLAGS_RELEASE "-O2 -g1")
set(CMAKE_C_FLAGS_DEBUG "-O0 -g")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g1")
add_compile_options(-ffp-contract=off -fno-math-errno -Wall -Wextra -Wshadow -Wstrict-prototypes
  -Wmissing-prototypes -Wold-style-definition -Wvla -Wpointer-arith -Wcast-qual -Wcast-align -Wwrite-strings -Wundef
  -Wformat=2 -Wfloat-conversion -Wimplicit-fallthrough -Wunused-macros -Wdate-time -Wno-missing-field-initializers)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wduplicated-cond -Wlogical-op -Wjump-misses-init -Wtrampolines -Wuse-after-free=3
    -Wno-format-truncation) # texts for people are cut on purpose
else()
  add_compile_options(-Wshorten-64-to-32 -Wshift-sign-overflow -Wunreachable-code -Wloop-analysis
    -Wmissing-variable-declarations)
endif()
add_compile_definitions(_GNU_SOURCE)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  add_compile_definitions(COP_DEBUG=1)
endif()
set(COPPICE_SANITIZE "" CACHE STRING "address,undefined or thread")
if(COPPICE_SANITIZE)
  set(CMAKE_C_FLAGS_DEBUG "-O0 -g1") # lines are enough for its reports, and an eighth less to compile
  add_compile_options(-fsanitize=${COPPICE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${COPPICE_SANITIZE})
endif()
# The presets fuzz and fuzz-plain: the libraries report coverage to libFuzzer, and the core checks its own invariants.
# Only fuzz-targets link with libFuzzer (tests/fuzz).
option(COPPICE_FUZZ "build the fuzz targets instead of the programs (clang)" OFF)
if(COPPICE_FUZZ)
  set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O1 -g1") # what libFuzzer's manual uses: a fifth less to compile
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_compile_definitions(COP_DEBUG=1)
endif()
include_directories(${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
configure_file(${CMAKE_SOURCE_DIR}/common/version.h.in ${CMAKE_BINARY_DIR}/generated/common/version.h)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
