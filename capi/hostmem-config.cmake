# The targets of CMake:
#
#   hostmem::hostmem, hostmem::malloc                 shared libraries
#   hostmem::hostmem_static, hostmem::malloc_static   archives
#
# A program links one of them, as the malloc contains the other library.
include(CMakeFindDependencyMacro)
find_dependency(Threads)

get_filename_component(_hostmem_lib "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
get_filename_component(_hostmem_include "${CMAKE_CURRENT_LIST_DIR}/@INCLUDE@" ABSOLUTE)

function(_hostmem_library target kind file)
    if(NOT EXISTS "${_hostmem_lib}/${file}" OR TARGET hostmem::${target})
        return()
    endif()
    add_library(hostmem::${target} ${kind} IMPORTED ${_hostmem_global})
    set_target_properties(hostmem::${target} PROPERTIES
        IMPORTED_LOCATION "${_hostmem_lib}/${file}"
        INTERFACE_INCLUDE_DIRECTORIES "${_hostmem_include}"
        INTERFACE_LINK_LIBRARIES Threads::Threads)
    if(kind STREQUAL SHARED)
        set_target_properties(hostmem::${target} PROPERTIES IMPORTED_SONAME "${file}")
    endif()
endfunction()

_hostmem_library(hostmem SHARED libhostmem.so.@SONAME@)
_hostmem_library(hostmem_static STATIC libhostmem.a)
_hostmem_library(malloc SHARED libhostmem_malloc.so.@SONAME@)
_hostmem_library(malloc_static STATIC libhostmem_malloc.a)
unset(_hostmem_lib)
unset(_hostmem_include)
