# The libraries that Tenon stands on. All come from the system's packages; oneDNN 3, which Debian 12 lacks, may
# instead lie in .deps/ where tools/setup puts it.
find_package(dnnl 3.0 CONFIG QUIET HINTS ${CMAKE_SOURCE_DIR}/.deps)
if(NOT dnnl_FOUND)
  message(FATAL_ERROR "oneDNN 3.0 or later was not found: run tools/setup, or install libdnnl-dev and give its prefix "
                      "with -DCMAKE_PREFIX_PATH=...")
endif()
find_package(OpenMP REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Boost 1.74 CONFIG REQUIRED COMPONENTS filesystem system)
find_package(Protobuf REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  find_path(XBYAK_INCLUDE_DIR xbyak/xbyak.h)  # headers alone
  if(NOT XBYAK_INCLUDE_DIR)
    message(FATAL_ERROR "Xbyak, the assembler, was not found: run tools/setup, or install libxbyak-dev")
  endif()
endif()
