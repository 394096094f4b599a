/**
 * @file
 * @brief Memory for LLVM's JITs: `llvm_memory_manager` for JITLink and ORC, `llvm_memory_mapper`
 * for MCJIT and RuntimeDyld. Each has a header that may be included alone.
 */
#ifndef HOSTMEM_LLVM_HPP
#define HOSTMEM_LLVM_HPP

#include "llvm_jitlink.hpp"
#include "llvm_sections.hpp"

#endif
