# Sets HOSTMEM_RUST_TARGET, Rust's name of the system that CMake's toolchain builds for.

function(_hostmem_find_target)
    if(HOSTMEM_TARGET)
        set(HOSTMEM_RUST_TARGET "${HOSTMEM_TARGET}" PARENT_SCOPE)
        return()
    endif()
    string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" cpu)
    if(cpu MATCHES "^(x86_64|amd64)$")
        set(cpu x86_64)
    elseif(cpu MATCHES "^(aarch64|arm64)$")
        set(cpu aarch64)
    else()
        set(cpu "")
    endif()
    if(NOT cpu OR NOT CMAKE_SYSTEM_NAME STREQUAL Linux OR NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
        math(EXPR bits "8 * 0${CMAKE_SIZEOF_VOID_P}")
        message(FATAL_ERROR
            "hostmem: no library for ${CMAKE_SYSTEM_NAME} on ${CMAKE_SYSTEM_PROCESSOR} "
            "(${bits} bits). There is one for 64-bit Linux on x86_64 and aarch64. HOSTMEM_TARGET "
            "overrides what CMAKE_SYSTEM_NAME and CMAKE_SYSTEM_PROCESSOR say.")
    endif()

    # What the compiler says of itself, unless its C library says otherwise: musl-gcc is the
    # system's gcc, and names the system's triple.
    set(triple "${CMAKE_C_COMPILER_TARGET}")
    if(NOT triple)
        execute_process(COMMAND "${CMAKE_C_COMPILER}" -dumpmachine
            OUTPUT_VARIABLE triple OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    if(triple MATCHES "musl")
        set(library musl)
    else()
        include(CheckSymbolExists)
        set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
        check_symbol_exists(__GLIBC__ features.h HOSTMEM_HAS_GLIBC)
        if(HOSTMEM_HAS_GLIBC)
            set(library gnu)
        else()
            set(library musl)
        endif()
    endif()
    set(HOSTMEM_RUST_TARGET "${cpu}-unknown-linux-${library}" PARENT_SCOPE)
endfunction()

_hostmem_find_target()
message(STATUS "hostmem: for ${HOSTMEM_RUST_TARGET}")
