// Vectors as wide as the instruction set that this is compiled for. Included by CPU kernels alone:
// all is in an anonymous namespace, so that no instruction set can lend code to another.
#pragma once

#include <cstdint>
#include <utility>

namespace ecgfast {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

#if defined(__FMA__)
constexpr bool kHasFma = true;
#else
constexpr bool kHasFma = false;
#endif

template <typename T>
struct Simd;
template <>
struct Simd<float> {
  typedef float vector __attribute__((vector_size(kVectorBytes)));
  typedef std::int32_t bits __attribute__((vector_size(kVectorBytes)));
  static constexpr std::int32_t kNoSign = INT32_MAX;
};
template <>
struct Simd<double> {
  typedef double vector __attribute__((vector_size(kVectorBytes)));
  typedef std::int64_t bits __attribute__((vector_size(kVectorBytes)));
  static constexpr std::int64_t kNoSign = INT64_MAX;
};
template <typename T>
using vec_t = typename Simd<T>::vector;
template <typename T>
using bits_t = typename Simd<T>::bits;
template <typename T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
vec_t<T> load(const T* p) {
  vec_t<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
vec_t<T> magnitude(vec_t<T> v) {
  return (vec_t<T>)((bits_t<T>)v & Simd<T>::kNoSign);
}

// Lanes of one half of a and b, in turn: a b a b ...
template <typename T, int kHalf, int... kLane>
vec_t<T> interleave(vec_t<T> a, vec_t<T> b, std::integer_sequence<int, kLane...>) {
  constexpr int kAll = static_cast<int>(sizeof...(kLane));
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (kHalf * kAll / 2 + kLane / 2 + (kLane % 2 ? kAll : 0))...);
#else
  return __builtin_shuffle(a, b,
                           bits_t<T>{(kHalf * kAll / 2 + kLane / 2 + (kLane % 2 ? kAll : 0))...});
#endif
}

// The sums over the lanes of kCount vectors, in turn along the result: v0 v1 ... v0 v1 ... Every
// vector's lanes are added in the same order, so that a sum does not show its place.
template <typename T, int kCount, int kStep = 1>
vec_t<T> sum_lanes(const vec_t<T>* v) {
  if constexpr (kCount == 1) {
    return v[0];
  } else {
    const vec_t<T> even = sum_lanes<T, kCount / 2, 2 * kStep>(v);
    const vec_t<T> odd = sum_lanes<T, kCount / 2, 2 * kStep>(v + kStep);
    constexpr auto lanes = std::make_integer_sequence<int, kLanes<T>>{};
    return interleave<T, 0>(even, odd, lanes) + interleave<T, 1>(even, odd, lanes);
  }
}

template <typename T>
void store(T* p, vec_t<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

template <typename T>
vec_t<T> broadcast(T value) {
  return value - vec_t<T>{};  // 0 would make +0 of -0 if it were added
}

}  // namespace
}  // namespace ecgfast
