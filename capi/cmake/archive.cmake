# The targets of this release archive, for add_subdirectory and FetchContent; find_package(hostmem)
# finds them too, in CMAKE_PREFIX_PATH.
cmake_minimum_required(VERSION 3.13)
set(_hostmem_global GLOBAL)
if(NOT TARGET Threads::Threads)
    find_package(Threads REQUIRED)
    set_target_properties(Threads::Threads PROPERTIES IMPORTED_GLOBAL TRUE)
endif()
include("${CMAKE_CURRENT_LIST_DIR}/lib/cmake/hostmem/hostmem-config.cmake")
