/**
 * @file
 * @brief Memory for LLVM's JITLink, and so for ORC: `llvm_memory_manager`.
 *
 * For LLVM 14, as Debian 12 has it, and newer. It needs neither exceptions nor run-time types.
 */
#ifndef HOSTMEM_LLVM_JITLINK_HPP
#define HOSTMEM_LLVM_JITLINK_HPP

#include "heap.hpp"
#include "jit.hpp"
#include "region.hpp"

#include <llvm/ExecutionEngine/JITLink/JITLink.h>
#include <llvm/ExecutionEngine/JITLink/JITLinkMemoryManager.h>
#include <llvm/ExecutionEngine/Orc/Shared/AllocationActions.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

namespace hostmem {

/** Executable memory and a heap within reach of relative addresses: a region of less than 2 GiB
 * that both lie in. */
class llvm_memory {
public:
    /** None. */
    llvm_memory() noexcept = default;
    llvm_memory(llvm_memory &&) noexcept = default;
    llvm_memory &operator=(llvm_memory &&other) noexcept {
        llvm_memory old(std::move(*this));
        region_ = std::move(other.region_);
        jit_ = std::move(other.jit_);
        heap_ = std::move(other.heap_);
        return *this;
    }
    /** Closes all, of which nothing is used any more. */
    ~llvm_memory() {
        heap_ = hostmem::heap();
        jit_ = hostmem::jit();
        if (region_) {
            static_cast<void>(hm_region_release_unused(region_.get(), 0, nullptr, nullptr));
        }
    }

    /** How many bytes of addresses are reserved where nothing else is asked for. */
    static constexpr std::size_t default_addresses = std::size_t{1} << 30;

    /** Reserves addresses, and makes executable memory and a heap there; none where `code` says so.
     * The configuration's source is passed by. */
    static llvm_memory create(std::error_code &code, std::size_t addresses = default_addresses,
                              hm_jit_config config = HM_JIT_CONFIG_INIT) noexcept {
        llvm_memory made;
        if (addresses >= std::size_t{1} << 31) {
            code = make_error_code(HM_TOO_LARGE);
            return made;
        }
        hm_request request = HM_REQUEST_INIT;
        request.len = addresses;
        request.name = "hostmem: LLVM";
        hm_range range = {};
        if (!detail::tell(code, [&](hm_error *e) {
                return hm_pages_reserve(nullptr, &request, &range, e);
            })) {
            return made;
        }
        const hm_region_config plain = HM_REGION_CONFIG_INIT;
        made.region_ = hostmem::region::create(plain, code);
        if (made.region_) {
            made.region_.adopt(range, code);
        }
        if (code) {
            static_cast<void>(hm_pages_release(nullptr, range, nullptr));
            return llvm_memory();
        }
        const hm_source source = made.region_.source();
        config.source = &source;
        hm_heap_config heap_config = HM_HEAP_CONFIG_INIT;
        heap_config.source = &source;
        made.jit_ = hostmem::jit::create(config, code);
        if (!code) {
            made.heap_ = hostmem::heap::create(heap_config, code);
        }
        return code ? llvm_memory() : std::move(made);
    }

    /** Says whether there is memory. */
    explicit operator bool() const noexcept { return static_cast<bool>(heap_); }
    /** Returns the executable memory. */
    const hostmem::jit &code() const noexcept { return jit_; }
    /** Returns the heap. */
    const hostmem::heap &data() const noexcept { return heap_; }

private:
    hostmem::region region_;
    hostmem::jit jit_;
    hostmem::heap heap_;
};

/**
 * A memory manager of JITLink. What a module may execute or only read is one span of a `jit`: LLVM
 * links it through the writable view, for the addresses of the executable one. What it may write is
 * one block of a `heap`, which is never executable. Spans and blocks are as long as they need to
 * be, so that many small modules share pages.
 *
 * Both must be within reach of each other's relative addresses, as those of an `llvm_memory` are;
 * else LLVM says of a module which of its addresses do not reach. With a mapping that is no dual
 * one LLVM links in a buffer, which is copied.
 *
 * Errors are the `std::error_code` of an `hm_status`; a section that is writable and executable is
 * `HM_UNSUPPORTED`. Thread-safe. It must outlive what was allocated.
 */
class llvm_memory_manager : public llvm::jitlink::JITLinkMemoryManager {
public:
    /** Makes a manager on executable memory and a heap, which must outlive it. */
    llvm_memory_manager(const jit &code, const heap &data) noexcept
        : jit_(code.get()), heap_(data.get()) {}
    /** Makes a manager on both, which must outlive it. */
    explicit llvm_memory_manager(const llvm_memory &memory) noexcept
        : llvm_memory_manager(memory.code(), memory.data()) {}

    using JITLinkMemoryManager::allocate;
    using JITLinkMemoryManager::deallocate;

    /** Allocates memory for a graph. */
    void allocate(const llvm::jitlink::JITLinkDylib *, llvm::jitlink::LinkGraph &graph,
                  OnAllocatedFunction done) override {
        llvm::jitlink::BasicLayout layout(graph);
        auto made = std::make_unique<in_flight>(*this, graph);
        if (llvm::Error error = made->lay_out(layout)) {
            made.reset();
            return done(std::move(error));
        }
        if (llvm::Error error = layout.apply()) {
            made.reset();
            return done(std::move(error));
        }
        done(std::unique_ptr<InFlightAlloc>(std::move(made)));
    }

    /** Runs what is to be run at the end of allocations, and frees their memory. */
    void deallocate(std::vector<FinalizedAlloc> allocations, OnDeallocatedFunction done) override {
        llvm::Error errors = llvm::Error::success();
        while (!allocations.empty()) {
            std::unique_ptr<finalized> last(allocations.back().release().toPtr<finalized *>());
            allocations.pop_back();
            errors = llvm::joinErrors(std::move(errors),
                                      llvm::orc::shared::runDeallocActions(last->actions));
            const hm_status status = give_back(last->held);
            if (status != HM_OK) {
                errors = llvm::joinErrors(std::move(errors), failed(status));
            }
        }
        done(std::move(errors));
    }

private:
    /** The segments of a module that live equally long. */
    struct pieces {
        hm_span code = {};
        void *data = nullptr;
        /** Where code is linked, if that is not the span. */
        void *buffer = nullptr;
    };

    struct finalized {
        pieces held;
        std::vector<llvm::orc::shared::WrapperFunctionCall> actions;
    };

    /** Segments one behind the other. */
    struct line {
        /** What nothing is as long as, and three of which are no more than a `std::size_t`. */
        static constexpr std::size_t most = SIZE_MAX / 4;

        std::size_t len = 0;
        std::size_t align = 1;
        /* Where they are linked, and where they will be. */
        char *working = nullptr;
        char *target = nullptr;

        template <class Segment> std::size_t add(const Segment &segment) noexcept {
            const std::size_t least = segment.Alignment.value();
            align = least > align ? least : align;
            const std::size_t at = (len + (least - 1)) & ~(least - 1);
            const bool is_long =
                at >= most || segment.ContentSize >= most || segment.ZeroFillSize >= most;
            len = is_long ? most
                          : at + segment.ContentSize +
                                static_cast<std::size_t>(segment.ZeroFillSize);
            return at;
        }
    };

    class in_flight final : public InFlightAlloc {
    public:
        in_flight(llvm_memory_manager &of, llvm::jitlink::LinkGraph &graph) noexcept
            : of_(of), graph_(graph) {}
        ~in_flight() override { static_cast<void>(give_back_all()); }

        /** Allocates, and tells each segment where it lies. */
        llvm::Error lay_out(llvm::jitlink::BasicLayout &layout) {
            line lines[2][2];
            for (auto &each : layout.segments()) {
                if (is_writable(each.first) && is_executable(each.first)) {
                    return failed(HM_UNSUPPORTED);
                }
                lines[is_temporary(each.first, 0)][is_writable(each.first)].add(each.second);
            }
            for (int temporary = 0; temporary < 2; temporary++) {
                auto &[code, data] = lines[temporary];
                hm_status status = of_.allocate_code(code, held_[temporary]);
                if (status == HM_OK) {
                    status = of_.allocate_data(data, held_[temporary]);
                }
                if (status != HM_OK) {
                    return failed(status);
                }
                code.len = data.len = 0;
            }
            for (auto &each : layout.segments()) {
                line &its = lines[is_temporary(each.first, 0)][is_writable(each.first)];
                const std::size_t at = its.add(each.second);
                each.second.WorkingMem = its.working + at;
                each.second.Addr = llvm::orc::ExecutorAddr::fromPtr(its.target + at);
            }
            return llvm::Error::success();
        }

        void finalize(OnFinalizedFunction done) override {
            for (pieces &each : held_) {
                const hm_status status = of_.publish(each);
                if (status != HM_OK) {
                    static_cast<void>(give_back_all());
                    return done(failed(status));
                }
            }
            auto actions = llvm::orc::shared::runFinalizeActions(graph_.allocActions());
            if (!actions) {
                static_cast<void>(give_back_all());
                return done(actions.takeError());
            }
            const hm_status status = of_.give_back(held_[1]);
            auto made = std::make_unique<finalized>();
            made->held = std::exchange(held_[0], pieces());
            made->actions = std::move(*actions);
            FinalizedAlloc allocation(llvm::orc::ExecutorAddr::fromPtr(made.release()));
            if (status == HM_OK) {
                return done(std::move(allocation));
            }
            std::vector<FinalizedAlloc> allocations;
            allocations.push_back(std::move(allocation));
            of_.deallocate(std::move(allocations), [&](llvm::Error error) {
                done(llvm::joinErrors(failed(status), std::move(error)));
            });
        }

        void abandon(OnAbandonedFunction done) override {
            const hm_status status = give_back_all();
            done(status == HM_OK ? llvm::Error::success() : failed(status));
        }

    private:
        hm_status give_back_all() noexcept {
            const hm_status temporary = of_.give_back(held_[1]);
            const hm_status standard = of_.give_back(held_[0]);
            return temporary != HM_OK ? temporary : standard;
        }

        llvm_memory_manager &of_;
        llvm::jitlink::LinkGraph &graph_;
        /** What stays, and what goes when the graph is finalized. */
        pieces held_[2];
    };

    static llvm::Error failed(hm_status status) {
        return llvm::errorCodeToError(make_error_code(status));
    }

    /* The types that a group is made of have moved from one namespace to another. */
    template <class Group> static bool is_writable(Group group) noexcept {
        using access = decltype(group.getMemProt());
        return (static_cast<int>(group.getMemProt()) & static_cast<int>(access::Write)) != 0;
    }
    template <class Group> static bool is_executable(Group group) noexcept {
        using access = decltype(group.getMemProt());
        return (static_cast<int>(group.getMemProt()) & static_cast<int>(access::Exec)) != 0;
    }

    /* How long memory lives has had three names. */
    template <class Group>
    static auto is_temporary(Group group, int) noexcept
        -> decltype(group.getMemLifetime(), bool()) {
        return group.getMemLifetime() == decltype(group.getMemLifetime())::Finalize;
    }
    template <class Group>
    static auto is_temporary(Group group, int) noexcept
        -> decltype(group.getMemLifetimePolicy(), bool()) {
        return group.getMemLifetimePolicy() == decltype(group.getMemLifetimePolicy())::Finalize;
    }
    template <class Group>
    static auto is_temporary(Group group, int) noexcept
        -> decltype(group.getMemDeallocPolicy(), bool()) {
        return group.getMemDeallocPolicy() == decltype(group.getMemDeallocPolicy())::Finalize;
    }

    /* Memory may have been used before, and what lies between segments is not written by LLVM. */
    hm_status allocate_code(line &wanted, pieces &to) noexcept {
        if (wanted.len == 0) {
            return HM_OK;
        }
        hm_placement where = {};
        where.align = wanted.align > 16 ? wanted.align : 0;
        const hm_status status =
            hm_jit_alloc_placed(jit_, wanted.len, &where, &to.code, nullptr);
        if (status != HM_OK) {
            return status;
        }
        wanted.target = static_cast<char *>(to.code.rx);
        if (to.code.rw == to.code.rx) {
            to.buffer = std::calloc(1, to.code.len);
            wanted.working = static_cast<char *>(to.buffer);
            return to.buffer == nullptr ? HM_OUT_OF_MEMORY : HM_OK;
        }
        wanted.working = static_cast<char *>(to.code.rw);
        std::memset(wanted.working, 0, to.code.len);
        return HM_OK;
    }

    hm_status allocate_data(line &wanted, pieces &to) noexcept {
        if (wanted.len == 0) {
            return HM_OK;
        }
        const hm_status status =
            hm_heap_alloc(heap_, wanted.len, wanted.align, 1, &to.data, nullptr);
        wanted.working = wanted.target = static_cast<char *>(to.data);
        return status;
    }

    /** Makes code that was linked one that can be executed. */
    hm_status publish(pieces &of) noexcept {
        if (of.code.rx == nullptr) {
            return HM_OK;
        }
        const hm_status status = hm_jit_write_with(jit_, &of.code, fill, of.buffer, nullptr);
        std::free(std::exchange(of.buffer, nullptr));
        return status;
    }

    /* Without a buffer the code is there already, and the call only publishes it. */
    static std::size_t fill(void *buffer, void *rw, void *, std::size_t len) noexcept {
        if (buffer != nullptr) {
            std::memcpy(rw, buffer, len);
        }
        return len;
    }

    hm_status give_back(pieces &of) noexcept {
        const pieces old = std::exchange(of, pieces());
        std::free(old.buffer);
        const hm_status code =
            old.code.rx == nullptr ? HM_OK : hm_jit_release(jit_, &old.code, nullptr);
        const hm_status data = old.data == nullptr ? HM_OK : hm_heap_free(heap_, old.data);
        return code != HM_OK ? code : data;
    }

    hm_jit *jit_;
    hm_heap *heap_;
};

} // namespace hostmem

#endif
