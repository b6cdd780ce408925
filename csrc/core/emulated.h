// The names of core/cuda.cuh in the emulator; see emulator.h.
#pragma once

#include <math.h>  // not <cmath>: kernels call sqrt and its like without std::

#include <algorithm>
#include <string_view>

#include "core/checked_pointer.h"
#include "core/dispatch.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define ECGFAST_SHARED(T, name, count)                                                        \
  static char name##_place; /* its address is the name of the array */                        \
  const ::ecgfast::Shared<T> name(                                                            \
      static_cast<T*>(::ecgfast::emulator::shared_array(&name##_place, (count) * sizeof(T))), \
      count, {})

// Where the caller of a wrapper stands in the source.
#define ECGFAST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// clang-format off
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
// clang-format on

namespace ecgfast {

using std::max;
using std::min;

template <typename T>
using Global = emulator::Pointer<T, emulator::GlobalSpace>;
template <typename T>
using Shared = emulator::Pointer<T, emulator::SharedSpace>;

static inline int thread_index() { return emulator::now.thread; }
static inline int lane_index() { return emulator::now.lane; }
static inline int warp_index() { return emulator::now.warp; }
static inline int block_index() { return static_cast<int>(emulator::now.block.x); }
static inline int block_index_y() { return static_cast<int>(emulator::now.block.y); }
static inline int block_index_z() { return static_cast<int>(emulator::now.block.z); }
static inline int block_count() { return static_cast<int>(emulator::now.blocks.x); }

namespace emulator {

// The value of lane `source`, or the own one if that lies outside the segment of `width` lanes.
template <typename V>
V exchange(const Site& site, V value, int source, int width, bool inside) {
  static_assert(sizeof(V) <= 8);
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    trap("calls a shuffle of width " + std::to_string(width) + ", which is no power of 2 up to 32");
  }
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(V));
  const std::uint64_t* const all = meet_warp(site, bits);
  if (inside) std::memcpy(&value, &all[source], sizeof(V));
  return value;
}

static inline int segment(int width) { return now.lane / width * width; }

}  // namespace emulator

template <typename V>
V shuffle(V value, int lane, int width = 32, ECGFAST_SITE) {
  const int source = emulator::segment(width) + (lane & (width - 1));
  return emulator::exchange({"shuffle", file, line}, value, source, width, true);
}
template <typename V>
V shuffle_xor(V value, int mask, int width = 32, ECGFAST_SITE) {
  const int source = lane_index() ^ mask;
  const bool inside = source < emulator::segment(width) + width;  // as the hardware has it
  return emulator::exchange({"shuffle_xor", file, line}, value, source, width, inside);
}
template <typename V>
V shuffle_up(V value, int step, int width = 32, ECGFAST_SITE) {
  const int source = lane_index() - step;
  const bool inside = source >= emulator::segment(width);
  return emulator::exchange({"shuffle_up", file, line}, value, source, width, inside);
}
template <typename V>
V shuffle_down(V value, int step, int width = 32, ECGFAST_SITE) {
  const int source = lane_index() + step;
  const bool inside = source < emulator::segment(width) + width;
  return emulator::exchange({"shuffle_down", file, line}, value, source, width, inside);
}

static inline unsigned ballot(bool holds, ECGFAST_SITE) {
  const std::uint64_t* const all = emulator::meet_warp({"ballot", file, line}, holds);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>(all[lane]) << lane;
  return votes;
}
static inline bool any_lane(bool holds, ECGFAST_SITE) { return ballot(holds, file, line) != 0; }
static inline bool all_lanes(bool holds, ECGFAST_SITE) { return ballot(!holds, file, line) == 0; }

static inline void sync_warp(ECGFAST_SITE) { emulator::sync_warp({"sync_warp", file, line}); }
static inline void sync_block(ECGFAST_SITE) { emulator::sync_block({"sync_block", file, line}); }
static inline void fence_device() {}

template <typename T>
Shared<T> dynamic_shared(std::int64_t byte_offset = 0) {
  std::size_t bytes = 0;
  char* const begin = static_cast<char*>(emulator::dynamic_array(&bytes));
  const auto rest = static_cast<std::int64_t>(bytes) - byte_offset;
  if (byte_offset < 0 || rest < 0 || byte_offset % alignof(T) != 0) {
    emulator::trap("asks for dynamic shared memory from byte " + std::to_string(byte_offset) +
                   ", where the launch gave " + std::to_string(bytes) + " bytes");
  }
  return {reinterpret_cast<T*>(begin + byte_offset), rest / static_cast<int>(sizeof(T)), {}};
}

namespace emulator {

// A pointer to a view's elements from `offset` on, `count` of them. It may be made for an index
// that is out of bounds, as on a device; then it reaches nothing.
template <typename T>
Global<T> reach(const View& view, std::int64_t offset, std::int64_t count, bool wholly) {
  if (view.data == nullptr) return nullptr;
  check_dtype(view, std::is_floating_point_v<T>, sizeof(T));
  GlobalSpace space;
  if constexpr (!std::is_const_v<T>) space.buffer = written(view, wholly);
  return {static_cast<T*>(view.data) + (count == 0 ? 0 : offset), count, space};
}

}  // namespace emulator

template <typename T>
Global<T> row(const View& view, std::int64_t r) {
  const std::int64_t leads = view.size[1];
  const std::int64_t offset = (r / leads) * view.stride[0] + (r % leads) * view.stride[1];
  const bool inside = r >= 0 && r < view.size[0] * leads;
  return emulator::reach<T>(view, offset, inside ? view.size[2] : 0, true);
}
template <typename T>
Global<T> record(const View& view, std::int64_t n) {
  const bool inside = n >= 0 && n < view.size[0];
  const std::int64_t count = inside ? emulator::extent(view, 1) : 0;
  return emulator::reach<T>(view, n * view.stride[0], count, true);
}
template <typename T>
Global<T> global(const View& view) {
  return emulator::reach<T>(view, 0, emulator::extent(view, 0), true);
}
template <typename T>
Global<T> update(const View& view) {
  return emulator::reach<T>(view, 0, emulator::extent(view, 0), false);
}

template <typename V, typename T, typename Space>
V load_as(const emulator::Pointer<T, Space>& pointer) {
  static_assert(sizeof(V) % sizeof(T) == 0);
  const T* const address = pointer.address(0, sizeof(V) / sizeof(T), "reads", sizeof(V));
  pointer.space().touch(address, sizeof(V), emulator::Access::read);
  V value;
  std::memcpy(&value, address, sizeof(V));
  return value;
}
template <typename V, typename T, typename Space>
void store_as(const emulator::Pointer<T, Space>& pointer, V value) {
  static_assert(sizeof(V) % sizeof(T) == 0);
  T* const address = pointer.address(0, sizeof(V) / sizeof(T), "writes", sizeof(V));
  pointer.space().touch(address, sizeof(V), emulator::Access::write);
  std::memcpy(address, &value, sizeof(V));
}
template <typename T>
std::remove_const_t<T> load_readonly(const Global<T>& pointer) {
  return pointer[0];
}

template <int kBytes, typename T, typename U>
void copy_async(const Shared<T>& shared, const Global<U>& global, int valid_bytes = kBytes) {
  static_assert(kBytes == 16 || kBytes == 8 || kBytes == 4);
  static_assert(std::is_same_v<T, std::remove_const_t<U>> && kBytes % sizeof(T) == 0);
  emulator::check_copy(kBytes, valid_bytes);
  T* const to = shared.address(0, kBytes / sizeof(T), "copies to", kBytes);
  const int count = (valid_bytes + static_cast<int>(sizeof(T)) - 1) / static_cast<int>(sizeof(T));
  const U* const from = count == 0 ? nullptr : global.address(0, count, "copies from", kBytes);
  emulator::copy_async(to, from, kBytes, valid_bytes);
}
static inline void copy_commit() { emulator::copy_commit(); }
template <int kLatest>
void copy_wait() {
  emulator::copy_wait(kLatest);
}

namespace emulator {

// Threads are never interrupted between meetings, so that all they do there is atomic.
template <typename T, typename Space, typename Change>
T atomically(const Pointer<T, Space>& pointer, const Change& change) {
  static_assert(std::is_integral_v<T>, "a sum of floats would depend on the order");
  T* const address = pointer.address(0, 1, "changes");
  pointer.space().touch(address, sizeof(T), Access::atomic);
  const T former = *address;
  *address = change(former);
  return former;
}

}  // namespace emulator

template <typename T, typename Space>
T atomic_add(const emulator::Pointer<T, Space>& pointer, std::common_type_t<T> value) {
  return emulator::atomically(pointer, [&](T former) { return static_cast<T>(former + value); });
}
template <typename T, typename Space>
T atomic_min(const emulator::Pointer<T, Space>& pointer, std::common_type_t<T> value) {
  return emulator::atomically(pointer, [&](T former) { return std::min(former, value); });
}
template <typename T, typename Space>
T atomic_max(const emulator::Pointer<T, Space>& pointer, std::common_type_t<T> value) {
  return emulator::atomically(pointer, [&](T former) { return std::max(former, value); });
}
template <typename T, typename Space>
T atomic_or(const emulator::Pointer<T, Space>& pointer, std::common_type_t<T> value) {
  return emulator::atomically(pointer, [&](T former) { return former | value; });
}
template <typename T, typename Space>
T atomic_exchange(const emulator::Pointer<T, Space>& pointer, std::common_type_t<T> value) {
  return emulator::atomically(pointer, [&](T) { return value; });
}
template <typename T, typename Space>
T atomic_compare_exchange(const emulator::Pointer<T, Space>& pointer,
                          std::common_type_t<T> expected, std::common_type_t<T> value) {
  return emulator::atomically(pointer,
                              [&](T former) { return former == expected ? value : former; });
}

static inline float exp2_approx(float x) { return exp2f(x); }
static inline float log2_approx(float x) { return log2f(x); }
static inline float rsqrt_approx(float x) { return 1.0f / sqrtf(x); }
static inline float sqrt_approx(float x) { return sqrtf(x); }
static inline float product_of(float a, float b) { return a * b; }
static inline double product_of(double a, double b) { return a * b; }
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }

namespace emulator {

template <typename To, typename From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace emulator

static inline int count_bits(unsigned bits) { return __builtin_popcount(bits); }
static inline unsigned bits_of(float x) { return emulator::same_bits<unsigned>(x); }
static inline unsigned long long bits_of(double x) {
  return emulator::same_bits<unsigned long long>(x);
}
static inline float from_bits(unsigned bits) { return emulator::same_bits<float>(bits); }
static inline double from_bits(unsigned long long bits) {
  return emulator::same_bits<double>(bits);
}
// By their bits as a device does it, so that memory which nobody wrote is the least of all.
static inline float least_of(float a, float b, float c) {
  const auto order = [](float x) { return emulator::same_bits<std::int32_t>(x); };
  return emulator::same_bits<float>(min(min(order(a), order(b)), order(c)));
}

template <auto kKernel, typename... Arguments>
void launch(Grid grid, int threads, std::size_t shared_bytes, std::uint64_t,
            const Arguments&... arguments) {
  const std::string kernel = emulator::kernel_in(__PRETTY_FUNCTION__);
  emulator::launch(kernel, grid, threads, shared_bytes, [&] { kKernel(arguments...); });
}

}  // namespace ecgfast
