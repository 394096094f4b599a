/**
 * @file
 * @brief Pages for LLVM's `SectionMemoryManager`, of MCJIT and RuntimeDyld: `llvm_memory_mapper`.
 *
 * For LLVM 14, as Debian 12 has it, and newer. It needs neither exceptions nor run-time types.
 */
#ifndef HOSTMEM_LLVM_SECTIONS_HPP
#define HOSTMEM_LLVM_SECTIONS_HPP

#include "error.hpp"

#include <llvm/ExecutionEngine/SectionMemoryManager.h>
#include <llvm/Support/Memory.h>
#include <llvm/Support/Process.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <system_error>

namespace hostmem {

/**
 * Where a `llvm::SectionMemoryManager` has its pages from: pages of the host, or of a source, that
 * are writable until the manager makes them executable or read-only at the same address; asked to
 * be both, writable and executable, they are refused with `HM_UNSUPPORTED`.
 *
 * All that one mapper allocates lies within 2 GiB, whichever of its managers asked, so that small
 * code reaches its data and other modules. Where those addresses are full it returns
 * `HM_OUT_OF_MEMORY` or `HM_OUT_OF_RANGE`. Thread-safe. It must outlive its managers.
 */
class llvm_memory_mapper : public llvm::SectionMemoryManager::MemoryMapper {
public:
    /** Makes a mapper of a source, or of the host for null; what the source names must outlive it.
     */
    explicit llvm_memory_mapper(const hm_source *from = nullptr) noexcept {
        if (from != nullptr) {
            from_ = *from;
        }
    }

    llvm::sys::MemoryBlock allocateMappedMemory(llvm::SectionMemoryManager::AllocationPurpose what,
                                                std::size_t len,
                                                const llvm::sys::MemoryBlock *near,
                                                unsigned flags, std::error_code &code) override {
        code.clear();
        if (len == 0) {
            return llvm::sys::MemoryBlock();
        }
        hm_request request = HM_REQUEST_INIT;
        request.len = len;
        request.name = "hostmem: LLVM";
        const bool is_code = what == llvm::SectionMemoryManager::AllocationPurpose::Code;
        const hm_ceiling most = is_code ? HM_CEILING_WRITE_XOR_EXEC : HM_CEILING_READ_WRITE;
        hm_access access = HM_ACCESS_NONE;
        hm_range range = {};
        const std::lock_guard<std::mutex> guard(lock_);
        if (anchor_ != 0) {
            request.placement.first = anchor_ > reach ? anchor_ - reach : 0;
            request.placement.last = anchor_ + (reach - 1);
            request.placement.at = anchor_;
            request.placement.place = HM_PLACE_NEAR;
        }
        if (near != nullptr && near->base() != nullptr) {
            request.placement.at = reinterpret_cast<std::uintptr_t>(near->base());
            request.placement.place = HM_PLACE_NEAR;
        }
        hm_status status = access_of(flags, access);
        if (status == HM_OK) {
            status = hm_pages_reserve(&from_, &request, &range, nullptr);
        }
        if (status != HM_OK) {
            code = make_error_code(status);
            return llvm::sys::MemoryBlock();
        }
        status = hm_pages_commit(&from_, range, access, most, HM_PAGES_BASE, nullptr);
        if (status != HM_OK) {
            static_cast<void>(hm_pages_release(&from_, range, nullptr));
            code = make_error_code(status);
            return llvm::sys::MemoryBlock();
        }
        if (anchor_ == 0) {
            anchor_ = reinterpret_cast<std::uintptr_t>(range.start);
        }
        return llvm::sys::MemoryBlock(range.start, range.len);
    }

    /** Changes the access of all pages that a block lies in. */
    std::error_code protectMappedMemory(const llvm::sys::MemoryBlock &block,
                                        unsigned flags) override {
        hm_access access = HM_ACCESS_NONE;
        hm_status status = access_of(flags, access);
        if (status == HM_OK && block.allocatedSize() != 0) {
            const std::size_t page = llvm::sys::Process::getPageSizeEstimate();
            const std::size_t into = reinterpret_cast<std::uintptr_t>(block.base()) % page;
            const std::size_t len = into + block.allocatedSize();
            const hm_range range = {static_cast<char *>(block.base()) - into,
                                    (len + (page - 1)) / page * page};
            status = hm_pages_protect(&from_, range, access, nullptr);
            if (status == HM_OK && access == HM_ACCESS_READ_EXEC) {
                hm_flush_icache(range.start, range.len);
            }
        }
        return status == HM_OK ? std::error_code() : make_error_code(status);
    }

    std::error_code releaseMappedMemory(llvm::sys::MemoryBlock &block) override {
        if (block.base() != nullptr && block.allocatedSize() != 0) {
            const hm_range range = {block.base(), block.allocatedSize()};
            const hm_status status = hm_pages_release(&from_, range, nullptr);
            if (status != HM_OK) {
                return make_error_code(status);
            }
        }
        block = llvm::sys::MemoryBlock();
        return std::error_code();
    }

private:
    /** How far from the first pages others may lie, so that any two of them are within 2 GiB. */
    static constexpr std::uintptr_t reach = std::uintptr_t{1} << 30;

    static hm_status access_of(unsigned flags, hm_access &access) noexcept {
        const bool writes = (flags & llvm::sys::Memory::MF_WRITE) != 0;
        const bool executes = (flags & llvm::sys::Memory::MF_EXEC) != 0;
        if (writes && executes) {
            return HM_UNSUPPORTED;
        }
        access = writes                                       ? HM_ACCESS_READ_WRITE
                 : executes                                   ? HM_ACCESS_READ_EXEC
                 : (flags & llvm::sys::Memory::MF_READ) != 0 ? HM_ACCESS_READ
                                                              : HM_ACCESS_NONE;
        return HM_OK;
    }

    hm_source from_ = HM_SOURCE_INIT;
    std::mutex lock_;
    std::uintptr_t anchor_ = 0;
};

} // namespace hostmem

#endif
