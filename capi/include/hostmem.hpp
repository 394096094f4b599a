/**
 * @file
 * @brief hostmem for C++17: owners, `std::pmr`, `std::error_code`. Header only, over hostmem.h.
 *
 * Each class owns an object of hostmem.h, is moved and not copied, and closes it when it ends.
 * Calls that can fail come twice: with a `std::error_code &` last they are `noexcept` and say there
 * what went wrong; without one they throw `hostmem::error`, a `std::system_error`, and are left out
 * where exceptions are (`-fno-exceptions`). The header needs no run-time types (`-fno-rtti`).
 *
 * The folder `hostmem` has a header for each part, which may be included alone.
 *
 * What a call does, and from where it may be made, hostmem.h says of the call of the same name.
 */
#ifndef HOSTMEM_HPP
#define HOSTMEM_HPP

#include "hostmem.h"
#include "hostmem/code_range.hpp"
#include "hostmem/containers.hpp"
#include "hostmem/error.hpp"
#include "hostmem/heap.hpp"
#include "hostmem/jit.hpp"
#include "hostmem/range_map.hpp"
#include "hostmem/region.hpp"

#endif
