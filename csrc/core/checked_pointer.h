// A pointer that knows its bounds and tells the emulator of every access; see emulator.h.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/emulator.h"

namespace ecgfast::emulator {

struct GlobalSpace {
  static constexpr const char* kName = "global memory";
  Buffer* buffer = nullptr;  // null where nothing is written
  void touch(const void* address, int bytes, Access access) const {
    if (buffer != nullptr) touch_global(buffer, address, bytes, access);
  }
};

struct SharedSpace {
  static constexpr const char* kName = "shared memory";
  void touch(const void* address, int bytes, Access access) const {
    touch_shared(address, bytes, access);
  }
};

template <typename T, typename Space>
T load(const T* address, const Space& space) {
  space.touch(address, sizeof(T), Access::read);
  return *address;
}

template <typename T, typename Space>
void store(T* address, const T& value, const Space& space) {
  const bool same = std::memcmp(address, &value, sizeof(T)) == 0;
  space.touch(address, sizeof(T), same ? Access::rewrite : Access::write);
  std::memcpy(address, &value, sizeof(T));
}

// What p[i] is when it may be written.
template <typename T, typename Space>
class Reference {
 public:
  Reference(T* address, Space space) : address_(address), space_(space) {}
  Reference(const Reference&) = default;
  operator T() const { return load(address_, space_); }
  Reference& operator=(T value) {
    store(address_, value, space_);
    return *this;
  }
  Reference& operator=(const Reference& other) { return *this = static_cast<T>(other); }
  Reference& operator+=(T value) { return *this = static_cast<T>(T(*this) + value); }
  Reference& operator-=(T value) { return *this = static_cast<T>(T(*this) - value); }
  Reference& operator*=(T value) { return *this = static_cast<T>(T(*this) * value); }
  Reference& operator/=(T value) { return *this = static_cast<T>(T(*this) / value); }
  Reference& operator|=(T value) { return *this = static_cast<T>(T(*this) | value); }
  Reference& operator&=(T value) { return *this = static_cast<T>(T(*this) & value); }
  Reference& operator++() { return *this += T(1); }
  Reference& operator--() { return *this -= T(1); }

 private:
  T* address_;
  Space space_;
};

template <typename T, typename Space>
class Pointer {
 public:
  using Value = std::remove_const_t<T>;

  Pointer() = default;
  Pointer(std::nullptr_t) {}
  Pointer(T* first, std::int64_t count, Space space)
      : first_(first), count_(count), space_(space) {}
  template <typename U, typename = std::enable_if_t<std::is_same_v<const U, T>>>
  Pointer(const Pointer<U, Space>& other)  // as T* becomes const T*
      : first_(other.first_), count_(other.count_), at_(other.at_), space_(other.space_) {}

  auto operator[](std::int64_t i) const {
    if constexpr (std::is_const_v<T>) {
      return load(address(i, 1, "reads"), space_);
    } else {
      return Reference<T, Space>(address(i, 1, "touches"), space_);
    }
  }
  auto operator*() const { return (*this)[0]; }

  Pointer& operator+=(std::int64_t step) {
    at_ += step;
    return *this;
  }
  Pointer& operator-=(std::int64_t step) { return *this += -step; }
  Pointer& operator++() { return *this += 1; }
  Pointer& operator--() { return *this += -1; }
  friend Pointer operator+(Pointer p, std::int64_t step) { return p += step; }
  friend Pointer operator+(std::int64_t step, Pointer p) { return p += step; }
  friend Pointer operator-(Pointer p, std::int64_t step) { return p += -step; }
  friend std::int64_t operator-(const Pointer& p, const Pointer& q) {
    return p.where() - q.where();
  }
  friend bool operator==(const Pointer& p, const Pointer& q) { return p.where() == q.where(); }
  friend bool operator!=(const Pointer& p, const Pointer& q) { return p.where() != q.where(); }
  friend bool operator<(const Pointer& p, const Pointer& q) { return p.where() < q.where(); }
  explicit operator bool() const { return first_ != nullptr; }

  // The address of element i, from which `count` elements may be touched in one go.
  T* address(std::int64_t i, std::int64_t count, const char* what, int alignment = 1) const {
    const std::int64_t begin = at_ + i;
    if (begin < 0 || begin + count > count_) out_of_bounds(begin, count, what);
    if (reinterpret_cast<std::uintptr_t>(first_ + begin) % alignment != 0) {
      trap(at(begin, count, what) + ", where " + std::to_string(alignment) +
           " bytes at a time must be aligned");
    }
    return first_ + begin;
  }
  const Space& space() const { return space_; }

 private:
  template <typename, typename>
  friend class Pointer;

  std::int64_t where() const {
    return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(first_)) /
               static_cast<std::int64_t>(sizeof(T)) +
           at_;
  }

  static std::string at(std::int64_t begin, std::int64_t count, const char* what) {
    std::string text = std::string(what) + " element " + std::to_string(begin);
    if (count > 1) text += " to " + std::to_string(begin + count - 1);
    return text + " of " + Space::kName;
  }
  [[noreturn]] void out_of_bounds(std::int64_t begin, std::int64_t count, const char* what) const {
    const std::string reach = "reaches " + std::to_string(count_) + " elements";
    trap(at(begin, count, what) + ", out of bounds: the pointer " +
         (first_ == nullptr ? "is null" : reach));
  }

  T* first_ = nullptr;
  std::int64_t count_ = 0;
  std::int64_t at_ = 0;  // an offset, since an address outside would be no pointer in C++
  Space space_{};
};

}  // namespace ecgfast::emulator
