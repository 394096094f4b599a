# Takes the libraries of a release archive, hostmem-VERSION-TARGET.tar.xz, or of a folder into which
# one was unpacked.

set(_hostmem_name "hostmem-${PROJECT_VERSION}-${HOSTMEM_RUST_TARGET}")
get_filename_component(_hostmem_from "${HOSTMEM_PREBUILT}" ABSOLUTE
    BASE_DIR "${CMAKE_SOURCE_DIR}")
set(_hostmem_archive "${_hostmem_from}/${_hostmem_name}.tar.xz")

if(EXISTS "${_hostmem_from}/lib/cmake/hostmem/hostmem-config.cmake")
    set(_hostmem_root "${_hostmem_from}")
elseif(EXISTS "${_hostmem_from}/${_hostmem_name}/lib/cmake/hostmem/hostmem-config.cmake")
    set(_hostmem_root "${_hostmem_from}/${_hostmem_name}")
elseif(EXISTS "${_hostmem_archive}")
    file(SHA256 "${_hostmem_archive}" _hostmem_sum)
    if(EXISTS "${_hostmem_from}/SHA256SUMS")
        file(STRINGS "${_hostmem_from}/SHA256SUMS" _hostmem_listed
            REGEX "[ *]${_hostmem_name}\\.tar\\.xz$")
        if(NOT _hostmem_listed MATCHES "^${_hostmem_sum} ")
            message(FATAL_ERROR
                "hostmem: ${_hostmem_archive} is not the file that SHA256SUMS beside it lists: "
                "its sum is ${_hostmem_sum}. Fetch it again.")
        endif()
    endif()
    set(_hostmem_unpacked "${CMAKE_CURRENT_BINARY_DIR}/prebuilt")
    set(_hostmem_root "${_hostmem_unpacked}/${_hostmem_name}")
    # A file beside it says of which archive it is, so that a newer one takes its place.
    set(_hostmem_stamp "")
    if(EXISTS "${_hostmem_unpacked}/sum")
        file(READ "${_hostmem_unpacked}/sum" _hostmem_stamp)
    endif()
    if(NOT _hostmem_stamp STREQUAL _hostmem_sum)
        file(REMOVE_RECURSE "${_hostmem_unpacked}")
        file(MAKE_DIRECTORY "${_hostmem_unpacked}")
        execute_process(COMMAND "${CMAKE_COMMAND}" -E tar xf "${_hostmem_archive}"
            WORKING_DIRECTORY "${_hostmem_unpacked}" RESULT_VARIABLE _hostmem_result)
        if(_hostmem_result)
            message(FATAL_ERROR "hostmem: ${_hostmem_archive} cannot be unpacked.")
        endif()
        file(WRITE "${_hostmem_unpacked}/sum" "${_hostmem_sum}")
    endif()
else()
    file(GLOB _hostmem_there RELATIVE "${_hostmem_from}" "${_hostmem_from}/hostmem-*")
    if(NOT _hostmem_there)
        set(_hostmem_there nothing)
    endif()
    string(REPLACE ";" ", " _hostmem_there "${_hostmem_there}")
    message(FATAL_ERROR
        "hostmem: no ${_hostmem_name}.tar.xz in HOSTMEM_PREBUILT=${HOSTMEM_PREBUILT}, which has "
        "${_hostmem_there} of hostmem's. capi/release.sh makes it, or leave HOSTMEM_PREBUILT "
        "empty to build by cargo.")
endif()

# An archive that somebody unpacked may be another system's or another version's.
file(STRINGS "${_hostmem_root}/TARGET" _hostmem_is LIMIT_COUNT 1)
if(NOT _hostmem_is STREQUAL "${PROJECT_VERSION} ${HOSTMEM_RUST_TARGET}")
    message(FATAL_ERROR
        "hostmem: ${_hostmem_root} is of ${_hostmem_is}, and ${PROJECT_VERSION} "
        "${HOSTMEM_RUST_TARGET} is needed.")
endif()
include("${_hostmem_root}/lib/cmake/hostmem/hostmem-config.cmake")
