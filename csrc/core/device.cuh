// The names of core/cuda.cuh on a device: each is one instruction or one address.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "core/view.h"

// Declares an array in shared memory, one for each place in the code that says so.
#define ECGFAST_SHARED(T, name, count) __shared__ T name[count]

namespace ecgfast {

template <typename T>
using Global = T* __restrict__;
template <typename T>
using Shared = T*;

__device__ static __forceinline__ int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ static __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % 32); }
__device__ static __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / 32); }
// Plain casts: an assumption that they are not negative cost the read-only loads of the kernel.
__device__ static __forceinline__ int block_index() { return static_cast<int>(blockIdx.x); }
__device__ static __forceinline__ int block_index_y() { return static_cast<int>(blockIdx.y); }
__device__ static __forceinline__ int block_index_z() { return static_cast<int>(blockIdx.z); }
__device__ static __forceinline__ int block_count() { return static_cast<int>(gridDim.x); }

constexpr unsigned kAllLanes = 0xffffffffu;

template <typename V>
__device__ static __forceinline__ V shuffle(V value, int lane, int width = 32) {
  return __shfl_sync(kAllLanes, value, lane, width);
}
template <typename V>
__device__ static __forceinline__ V shuffle_xor(V value, int mask, int width = 32) {
  return __shfl_xor_sync(kAllLanes, value, mask, width);
}
template <typename V>
__device__ static __forceinline__ V shuffle_up(V value, int step, int width = 32) {
  return __shfl_up_sync(kAllLanes, value, step, width);
}
template <typename V>
__device__ static __forceinline__ V shuffle_down(V value, int step, int width = 32) {
  return __shfl_down_sync(kAllLanes, value, step, width);
}

__device__ static __forceinline__ unsigned ballot(bool holds) {
  return __ballot_sync(kAllLanes, holds);
}
__device__ static __forceinline__ bool any_lane(bool holds) {
  return __any_sync(kAllLanes, holds) != 0;
}
__device__ static __forceinline__ bool all_lanes(bool holds) {
  return __all_sync(kAllLanes, holds) != 0;
}

__device__ static __forceinline__ void sync_warp() { __syncwarp(); }
__device__ static __forceinline__ void sync_block() { __syncthreads(); }
__device__ static __forceinline__ void fence_device() { __threadfence(); }

template <typename T>
__device__ static __forceinline__ Shared<T> dynamic_shared(std::int64_t byte_offset = 0) {
  extern __shared__ __align__(16) unsigned char ecgfast_dynamic_shared[];
  return reinterpret_cast<T*>(ecgfast_dynamic_shared + byte_offset);
}

template <typename T>
__device__ static __forceinline__ T* global(const View& view) {
  return static_cast<T*>(view.data);
}
template <typename T>
__device__ static __forceinline__ T* update(const View& view) {
  return static_cast<T*>(view.data);
}

template <typename V, typename T>
__device__ static __forceinline__ V load_as(const T* pointer) {
  static_assert(sizeof(V) % sizeof(T) == 0);
  return *reinterpret_cast<const V*>(pointer);
}
template <typename V, typename T>
__device__ static __forceinline__ void store_as(T* pointer, V value) {
  static_assert(sizeof(V) % sizeof(T) == 0);
  *reinterpret_cast<V*>(pointer) = value;
}
template <typename T>
__device__ static __forceinline__ T load_readonly(const T* pointer) {
  return __ldg(pointer);
}

// The 16-byte form goes past L1, which keeps it for what is read again.
template <int kBytes, typename T>
__device__ static __forceinline__ void copy_async(T* shared, const T* global,
                                                  int valid_bytes = kBytes) {
  static_assert(kBytes == 16 || kBytes == 8 || kBytes == 4);
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
                 "r"(valid_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(to), "l"(global),
                 "r"(valid_bytes), "n"(kBytes)
                 : "memory");
  }
}
__device__ static __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kLatest>
__device__ static __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLatest) : "memory");
}

// The hardware counts in int, unsigned and their long long forms, some of it in unsigned ones only.
template <typename T>
using Bits = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;
template <typename T>
using Counter = std::conditional_t<std::is_signed_v<T>, std::make_signed_t<Bits<T>>, Bits<T>>;

template <typename To, typename T>
__device__ static __forceinline__ To* counted(T* pointer) {
  static_assert(std::is_integral_v<T>, "a sum of floats would depend on the order");
  static_assert(sizeof(T) == sizeof(To), "atomics are of 4 or 8 bytes");
  return reinterpret_cast<To*>(pointer);
}
template <typename T>
__device__ static __forceinline__ T atomic_add(T* pointer, std::common_type_t<T> value) {
  return static_cast<T>(atomicAdd(counted<Bits<T>>(pointer), static_cast<Bits<T>>(value)));
}
template <typename T>
__device__ static __forceinline__ T atomic_min(T* pointer, std::common_type_t<T> value) {
  return static_cast<T>(atomicMin(counted<Counter<T>>(pointer), static_cast<Counter<T>>(value)));
}
template <typename T>
__device__ static __forceinline__ T atomic_max(T* pointer, std::common_type_t<T> value) {
  return static_cast<T>(atomicMax(counted<Counter<T>>(pointer), static_cast<Counter<T>>(value)));
}
template <typename T>
__device__ static __forceinline__ T atomic_or(T* pointer, std::common_type_t<T> value) {
  return static_cast<T>(atomicOr(counted<Bits<T>>(pointer), static_cast<Bits<T>>(value)));
}
template <typename T>
__device__ static __forceinline__ T atomic_exchange(T* pointer, std::common_type_t<T> value) {
  return static_cast<T>(atomicExch(counted<Bits<T>>(pointer), static_cast<Bits<T>>(value)));
}
template <typename T>
__device__ static __forceinline__ T atomic_compare_exchange(T* pointer,
                                                            std::common_type_t<T> expected,
                                                            std::common_type_t<T> value) {
  return static_cast<T>(atomicCAS(counted<Bits<T>>(pointer), static_cast<Bits<T>>(expected),
                                  static_cast<Bits<T>>(value)));
}

__device__ static __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ static __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ static __forceinline__ float rsqrt_approx(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ static __forceinline__ float sqrt_approx(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ static __forceinline__ float product_of(float a, float b) { return __fmul_rn(a, b); }
__device__ static __forceinline__ double product_of(double a, double b) { return __dmul_rn(a, b); }
__device__ static __forceinline__ int count_bits(unsigned bits) { return __popc(bits); }
__device__ static __forceinline__ unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ static __forceinline__ unsigned long long bits_of(double x) {
  return static_cast<unsigned long long>(__double_as_longlong(x));
}
// The bits of floats that are not negative are in their order: one instruction from sm_90 on.
__device__ static __forceinline__ float least_of(float a, float b, float c) {
  return __int_as_float(__vimin3_s32(__float_as_int(a), __float_as_int(b), __float_as_int(c)));
}
__device__ static __forceinline__ float from_bits(unsigned bits) { return __uint_as_float(bits); }
__device__ static __forceinline__ double from_bits(unsigned long long bits) {
  return __longlong_as_double(static_cast<long long>(bits));
}

// A refused launch shows in leave_device() of core/border.h, which asks for the last error.
template <auto kKernel, typename... Arguments>
static void launch(Grid grid, int threads, std::size_t shared_bytes, std::uint64_t stream,
                   const Arguments&... arguments) {
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  kKernel<<<dim3(grid.x, grid.y, grid.z), static_cast<unsigned>(threads), shared_bytes,
            reinterpret_cast<cudaStream_t>(stream)>>>(arguments...);
}

}  // namespace ecgfast
