# Third-party libraries, each with the oldest version that is known to work.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv>=1.44)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c>=1.4)
pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET openblas)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl>=3.0)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(CAIRO REQUIRED IMPORTED_TARGET cairo)
pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng>=1.6)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
# Optional: without it `coppice data get` says that this build cannot download (cross builds).
pkg_check_modules(CURL IMPORTED_TARGET libcurl)
# nng below 1.10 wedges its reaper thread when a peer dies during a large send: refused.
find_package(nng 1.10 CONFIG QUIET)
if(NOT nng_FOUND)
  message(FATAL_ERROR "Coppice needs nng >= 1.10 (1.x API). This system has an older one or none: use ./dev, "
    "which builds in a Debian 13 container.")
endif()
find_program(PROTOC_C NAMES protoc-c REQUIRED)
