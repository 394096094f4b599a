/**
 * @file
 * @brief What all owners of handles share.
 */
#ifndef HOSTMEM_OWNER_HPP
#define HOSTMEM_OWNER_HPP

#include <utility>

namespace hostmem {

namespace detail {

/** A handle that is closed when it ends. An error of `Close` says that the object was closed too
 * early, or twice: there is nothing to tell that to. */
template <class T, void (*Close)(T *) noexcept> class owner {
public:
    owner() noexcept = default;
    explicit owner(T *handle) noexcept : handle_(handle) {}
    owner(owner &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    owner &operator=(owner &&other) noexcept {
        if (this != &other) {
            reset(std::exchange(other.handle_, nullptr));
        }
        return *this;
    }
    owner(const owner &) = delete;
    owner &operator=(const owner &) = delete;
    ~owner() { reset(nullptr); }

    /** Returns the handle, for calls of hostmem.h; null if there is none. */
    T *get() const noexcept { return handle_; }
    /** Says whether there is an object. */
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    /** Gives the object up, which the caller closes. */
    T *release() noexcept { return std::exchange(handle_, nullptr); }

private:
    void reset(T *handle) noexcept {
        if (handle_ != nullptr) {
            Close(handle_);
        }
        handle_ = handle;
    }

    T *handle_ = nullptr;
};

} // namespace detail

} // namespace hostmem

#endif
