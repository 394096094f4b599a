# Builds the libraries by cargo, through install.sh, into the build folder.

get_filename_component(_hostmem_source "${CMAKE_CURRENT_SOURCE_DIR}/.." ABSOLUTE)

find_program(HOSTMEM_CARGO cargo HINTS "$ENV{CARGO_HOME}/bin" "$ENV{HOME}/.cargo/bin"
    DOC "The cargo that builds hostmem" NO_CMAKE_FIND_ROOT_PATH)
find_program(HOSTMEM_BASH bash DOC "For hostmem's build script" NO_CMAKE_FIND_ROOT_PATH)
mark_as_advanced(HOSTMEM_BASH)
file(STRINGS "${_hostmem_source}/Cargo.toml" _hostmem_least REGEX "^rust-version = " LIMIT_COUNT 1)
string(REGEX REPLACE ".*\"(.*)\"" "\\1" _hostmem_least "${_hostmem_least}")
if(NOT HOSTMEM_CARGO)
    message(FATAL_ERROR
        "hostmem: no cargo, which builds it. Install Rust ${_hostmem_least} or newer "
        "(https://rustup.rs), or set HOSTMEM_CARGO to a cargo, or HOSTMEM_PREBUILT to a folder of "
        "release archives, which need no Rust.")
endif()
if(NOT HOSTMEM_BASH)
    message(FATAL_ERROR "hostmem: no bash, which its build script needs.")
endif()

# The rustc that this cargo uses.
get_filename_component(_hostmem_bin "${HOSTMEM_CARGO}" DIRECTORY)
if(DEFINED ENV{RUSTC})
    set(_hostmem_rustc "$ENV{RUSTC}")
elseif(EXISTS "${_hostmem_bin}/rustc")
    set(_hostmem_rustc "${_hostmem_bin}/rustc")
else()
    set(_hostmem_rustc rustc)
endif()
execute_process(COMMAND "${_hostmem_rustc}" --version WORKING_DIRECTORY "${_hostmem_source}"
    OUTPUT_VARIABLE _hostmem_rust ERROR_VARIABLE _hostmem_said RESULT_VARIABLE _hostmem_result)
if(NOT _hostmem_result EQUAL 0)
    message(FATAL_ERROR "hostmem: ${_hostmem_rustc} does not run: ${_hostmem_said}")
endif()
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" _hostmem_rust "${_hostmem_rust}")
if(_hostmem_rust VERSION_LESS _hostmem_least)
    message(FATAL_ERROR
        "hostmem: ${_hostmem_rustc} is Rust ${_hostmem_rust}, and ${_hostmem_least} is needed.")
endif()
execute_process(
    COMMAND "${_hostmem_rustc}" --print target-libdir --target "${HOSTMEM_RUST_TARGET}"
    WORKING_DIRECTORY "${_hostmem_source}" OUTPUT_STRIP_TRAILING_WHITESPACE
    OUTPUT_VARIABLE _hostmem_libdir ERROR_VARIABLE _hostmem_said RESULT_VARIABLE _hostmem_result)
if(NOT _hostmem_result EQUAL 0)
    message(FATAL_ERROR
        "hostmem: rustc knows no target ${HOSTMEM_RUST_TARGET}: ${_hostmem_said}")
endif()
file(GLOB _hostmem_libcore "${_hostmem_libdir}/libcore-*.rlib")
if(NOT _hostmem_libcore)
    message(FATAL_ERROR
        "hostmem: this Rust has no library for ${HOSTMEM_RUST_TARGET}. Install it: "
        "rustup target add ${HOSTMEM_RUST_TARGET}")
endif()
if(HOSTMEM_VENDOR)
    get_filename_component(_hostmem_vendor "${HOSTMEM_VENDOR}" ABSOLUTE
        BASE_DIR "${CMAKE_SOURCE_DIR}")
    if(NOT EXISTS "${_hostmem_vendor}/libc/.cargo-checksum.json")
        message(FATAL_ERROR
            "hostmem: HOSTMEM_VENDOR=${HOSTMEM_VENDOR} is no folder that `cargo vendor` made: "
            "run `cargo vendor FOLDER` in ${_hostmem_source}.")
    endif()
endif()

# The linker is the C compiler, told for which system as CMake tells it.
string(TOUPPER "${HOSTMEM_RUST_TARGET}" _hostmem_variable)
string(REPLACE "-" "_" _hostmem_variable "${_hostmem_variable}")
set(_hostmem_linking)
if(CMAKE_C_COMPILER_TARGET AND CMAKE_C_COMPILER_ID MATCHES "Clang")
    list(APPEND _hostmem_linking "-Clink-arg=--target=${CMAKE_C_COMPILER_TARGET}")
endif()
if(CMAKE_SYSROOT)
    list(APPEND _hostmem_linking "-Clink-arg=--sysroot=${CMAKE_SYSROOT}")
endif()
string(REPLACE ";" " " _hostmem_linking "${_hostmem_linking}")

set(_hostmem_built "${CMAKE_CURRENT_BINARY_DIR}/installed")
set(_hostmem_environment
    "CARGO=${HOSTMEM_CARGO}"
    "RUSTC=${_hostmem_rustc}"
    "TARGET=${HOSTMEM_RUST_TARGET}"
    "CARGO_TARGET_DIR=${CMAKE_CURRENT_BINARY_DIR}/cargo"
    "CARGO_TARGET_${_hostmem_variable}_LINKER=${CMAKE_C_COMPILER}"
    "VENDOR=${_hostmem_vendor}"
    "NM=${CMAKE_NM}" "LD=${CMAKE_LINKER}" "OBJCOPY=${CMAKE_OBJCOPY}" "AR=${CMAKE_AR}"
    "STRIP=${CMAKE_STRIP}")
if(_hostmem_linking)
    list(APPEND _hostmem_environment
        "CARGO_TARGET_${_hostmem_variable}_RUSTFLAGS=${_hostmem_linking}")
endif()
foreach(_hostmem_tool NM LINKER OBJCOPY AR STRIP)
    if(NOT CMAKE_${_hostmem_tool})
        message(FATAL_ERROR
            "hostmem: the toolchain has no CMAKE_${_hostmem_tool}, which makes its archives.")
    endif()
endforeach()

file(GLOB_RECURSE _hostmem_sources CONFIGURE_DEPENDS
    "${_hostmem_source}/src/*.rs" "${_hostmem_source}/core/src/*.rs"
    "${_hostmem_source}/backend-linux/src/*.rs" "${_hostmem_source}/capi/c/src/*.rs"
    "${_hostmem_source}/capi/malloc/src/*.rs")
list(APPEND _hostmem_sources
    "${_hostmem_source}/Cargo.toml" "${_hostmem_source}/Cargo.lock"
    "${CMAKE_CURRENT_SOURCE_DIR}/install.sh" "${CMAKE_CURRENT_SOURCE_DIR}/soname"
    "${CMAKE_CURRENT_SOURCE_DIR}/c/symbols.txt" "${CMAKE_CURRENT_SOURCE_DIR}/malloc/symbols.txt")
file(STRINGS soname _hostmem_soname LIMIT_COUNT 1)

# By itself this project builds both libraries, and within another one what is linked.
set(_hostmem_all "")
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
    set(_hostmem_all ALL)
endif()

# Makes the targets of a library: `target` and `target`_static.
function(_hostmem_build target name)
    set(prefix "${_hostmem_built}/${name}")
    set(shared "lib${name}.so.${_hostmem_soname}")
    add_custom_command(
        OUTPUT "${prefix}/lib/${shared}" "${prefix}/lib/lib${name}.a"
        COMMAND "${CMAKE_COMMAND}" -E env ${_hostmem_environment} "LIBRARIES=${name}"
            "${HOSTMEM_BASH}" "${CMAKE_CURRENT_SOURCE_DIR}/install.sh" "${prefix}"
        DEPENDS ${_hostmem_sources}
        COMMENT "Building ${name} by cargo for ${HOSTMEM_RUST_TARGET}"
        VERBATIM)
    add_custom_target(hostmem_build_${target} ${_hostmem_all}
        DEPENDS "${prefix}/lib/${shared}" "${prefix}/lib/lib${name}.a")

    add_library(hostmem::${target} SHARED IMPORTED GLOBAL)
    set_target_properties(hostmem::${target} PROPERTIES
        IMPORTED_LOCATION "${prefix}/lib/${shared}" IMPORTED_SONAME "${shared}")
    add_library(hostmem::${target}_static STATIC IMPORTED GLOBAL)
    set_target_properties(hostmem::${target}_static PROPERTIES
        IMPORTED_LOCATION "${prefix}/lib/lib${name}.a")
    foreach(library hostmem::${target} hostmem::${target}_static)
        set_target_properties(${library} PROPERTIES
            INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_SOURCE_DIR}/include"
            INTERFACE_LINK_LIBRARIES Threads::Threads)
        add_dependencies(${library} hostmem_build_${target})
    endforeach()
endfunction()

_hostmem_build(hostmem hostmem)
_hostmem_build(malloc hostmem_malloc)
