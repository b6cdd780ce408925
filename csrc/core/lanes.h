// Signals side by side: kGroup rows of samples, turned so that a vector holds one moment of all of
// them. What is serial in time, as a recursive filter, then runs in all lanes at once, and every
// signal gets the same operations in the same order, whatever its neighbours are. Included by CPU
// kernels alone, as core/simd.h is.
#pragma once

#include "core/simd.h"

namespace ecgfast {
namespace {

// Two vectors of double: 16, 8, 4 signals with AVX-512, AVX2, baseline; so many floats fill one.
constexpr int kGroup = 2 * kLanes<double>;

// One side of an exchange of blocks of kStep x kStep elements between rows kStep apart: the first
// row keeps its even blocks and takes the second's (kOdd false), or the other way round.
template <typename T, int kStep, bool kOdd, int... kLane>
vec_t<T> exchange(vec_t<T> a, vec_t<T> b, std::integer_sequence<int, kLane...>) {
  constexpr int kAll = static_cast<int>(sizeof...(kLane));
  constexpr auto source = [](int lane) {
    const bool odd = (lane & kStep) != 0;
    return kOdd ? (odd ? kAll + lane : lane + kStep) : (odd ? kAll + lane - kStep : lane);
  };
#if defined(__clang__)
  return __builtin_shufflevector(a, b, source(kLane)...);
#else
  return __builtin_shuffle(a, b, bits_t<T>{source(kLane)...});
#endif
}

// kLanes x kLanes elements, rows to columns: log2(kLanes) rounds of exchanges.
template <typename T, int kStep = 1>
void transpose(vec_t<T>* v) {
  if constexpr (kStep < kLanes<T>) {
    constexpr auto lanes = std::make_integer_sequence<int, kLanes<T>>{};
    for (int i = 0; i < kLanes<T>; ++i) {
      if (i & kStep) continue;
      const vec_t<T> a = v[i];
      const vec_t<T> b = v[i + kStep];
      v[i] = exchange<T, kStep, false>(a, b, lanes);
      v[i + kStep] = exchange<T, kStep, true>(a, b, lanes);
    }
    transpose<T, 2 * kStep>(v);
  }
}

// out[t * kGroup + lane] = rows[lane][t]. All kGroup rows are read: for lanes that no signal takes,
// repeat a row.
template <typename T>
void to_lanes(const T* const* rows, std::int64_t samples, T* out) {
  constexpr int kBlock = kLanes<T>;
  std::int64_t t = 0;
  for (; t + kBlock <= samples; t += kBlock) {
    for (int first = 0; first < kGroup; first += kBlock) {
      vec_t<T> v[kBlock];
      for (int i = 0; i < kBlock; ++i) v[i] = load(rows[first + i] + t);
      transpose<T>(v);
      for (int i = 0; i < kBlock; ++i) store(out + (t + i) * kGroup + first, v[i]);
    }
  }
  for (int rest = static_cast<int>(samples - t); rest > 0; --rest, ++t) {
    for (int lane = 0; lane < kGroup; ++lane) out[t * kGroup + lane] = rows[lane][t];
  }
}

// rows[lane][t] = in[t * kGroup + lane] for the first `count` lanes.
template <typename T>
void from_lanes(const T* in, std::int64_t samples, T* const* rows, int count) {
  constexpr int kBlock = kLanes<T>;
  std::int64_t t = 0;
  for (; t + kBlock <= samples; t += kBlock) {
    for (int first = 0; first < count; first += kBlock) {
      vec_t<T> v[kBlock];
      for (int i = 0; i < kBlock; ++i) v[i] = load(in + (t + i) * kGroup + first);
      transpose<T>(v);
      for (int i = 0; i < kBlock && first + i < count; ++i) store(rows[first + i] + t, v[i]);
    }
  }
  for (int rest = static_cast<int>(samples - t); rest > 0; --rest, ++t) {
    for (int lane = 0; lane < count; ++lane) rows[lane][t] = in[t * kGroup + lane];
  }
}

}  // namespace
}  // namespace ecgfast
