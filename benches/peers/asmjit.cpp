// AsmJit's JitAllocator for C: the calls that benches/src/asmjit.rs declares.
//
// Two interfaces: that of Debian 12's libasmjit-dev (1.9, 2022), and that of 1.18 (2025) and newer.

#include <asmjit/core.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

using asmjit::JitAllocator;
using asmjit::JitAllocatorOptions;
using asmjit::kErrorOk;

#define SPANS_OF_NEWEST (ASMJIT_LIBRARY_VERSION >= 0x011200)

#if !SPANS_OF_NEWEST && ASMJIT_LIBRARY_VERSION >= 0x010B00
#error "AsmJit 1.11 to 1.17 have yet another interface"
#endif

#if SPANS_OF_NEWEST
static constexpr auto kOk = asmjit::Error::kOk;
#else
static constexpr auto kOk = kErrorOk;
#endif

extern "C" {

struct HostmemUsage {
  size_t used;
  size_t reserved;
  size_t metadata;
};

uint32_t hostmem_asmjit_version() {
  return ASMJIT_LIBRARY_VERSION;
}

JitAllocator* hostmem_asmjit_new() {
  JitAllocator::CreateParams params {};
  params.options = JitAllocatorOptions::kUseDualMapping;
  return new JitAllocator(&params);
}

void hostmem_asmjit_delete(JitAllocator* self) {
  delete self;
}

// Null where there is no memory.
void* hostmem_asmjit_alloc(JitAllocator* self, size_t size) {
#if SPANS_OF_NEWEST
  JitAllocator::Span span;
  return self->alloc(asmjit::Out(span), size) == kOk ? span.rx() : nullptr;
#else
  void* rx = nullptr;
  void* rw = nullptr;
  return self->alloc(&rx, &rw, size) == kOk ? rx : nullptr;
#endif
}

// Null where there is no memory, or the piece cannot be shrunk.
void* hostmem_asmjit_alloc_and_shrink(JitAllocator* self, size_t size, size_t keep) {
#if SPANS_OF_NEWEST
  JitAllocator::Span span;
  if (self->alloc(asmjit::Out(span), size) != kOk)
    return nullptr;
  void* rx = span.rx();
  return self->shrink(span, keep) == kOk ? rx : nullptr;
#else
  void* rx = nullptr;
  void* rw = nullptr;
  if (self->alloc(&rx, &rw, size) != kOk)
    return nullptr;
  return self->shrink(rx, keep) == kOk ? rx : nullptr;
#endif
}

// Null where there is no memory. Writes `len` bytes through the writable view.
void* hostmem_asmjit_alloc_written(JitAllocator* self, size_t size, const uint8_t* code, size_t len) {
#if SPANS_OF_NEWEST
  JitAllocator::Span span;
  if (self->alloc(asmjit::Out(span), size) != kOk)
    return nullptr;
  return self->write(span, 0, code, len) == kOk ? span.rx() : nullptr;
#else
  void* rx = nullptr;
  void* rw = nullptr;
  if (self->alloc(&rx, &rw, size) != kOk)
    return nullptr;
  std::memcpy(rw, code, len);
  return rx;
#endif
}

bool hostmem_asmjit_release(JitAllocator* self, void* rx) {
  return self->release(rx) == kOk;
}

bool hostmem_asmjit_query(const JitAllocator* self, void* pc, void** start, size_t* len) {
#if SPANS_OF_NEWEST
  JitAllocator::Span span;
  if (self->query(asmjit::Out(span), pc) != kOk)
    return false;
  *start = span.rx();
  *len = span.size();
  return true;
#else
  void* rw = nullptr;
  return self->query(pc, start, &rw, len) == kOk;
#endif
}

void hostmem_asmjit_usage(const JitAllocator* self, HostmemUsage* usage) {
  JitAllocator::Statistics statistics = self->statistics();
#if SPANS_OF_NEWEST
  usage->used = statistics.used_size();
  usage->reserved = statistics.reserved_size();
  usage->metadata = statistics.overhead_size();
#else
  usage->used = statistics.usedSize();
  usage->reserved = statistics.reservedSize();
  usage->metadata = statistics.overheadSize();
#endif
}

}
