// exp2, log1p and log2, a vector at a time and without a branch. Included by CPU kernels alone; see
// core/simd.h.
#pragma once

#include "core/simd.h"

namespace ecgfast {
namespace {

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

// A product that no addition may be fused with: z - max is exactly 0 for the greatest z only if
// both were rounded alike.
template <typename T>
vec_t<T> rounded(vec_t<T> product) {
#if defined(__x86_64__)
  asm("" : "+v"(product));
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#endif
  return product;
}

template <typename T>
struct Exp2;
template <>
struct Exp2<float> {
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: a sum with it has no fraction
  static constexpr int kMantissa = 23;
  static constexpr float kLeast = -126;  // below lie subnormals
  static constexpr float kMost = 128;
  static constexpr int kTerms = 8;  // the next one is under 6e-9
};
template <>
struct Exp2<double> {
  static constexpr double kRound = 6755399441055744.0;
  static constexpr int kMantissa = 52;
  static constexpr double kLeast = -1022;
  static constexpr double kMost = 1024;
  static constexpr int kTerms = 14;  // the next one is under 5e-18
};

// ln(2)^k / k!
constexpr double exp2_term(int k) { return k == 0 ? 1.0 : exp2_term(k - 1) * kLn2 / k; }

template <typename T, int... kTerm>
vec_t<T> exp2_series(vec_t<T> f, std::integer_sequence<int, kTerm...>) {
  constexpr int kTerms = sizeof...(kTerm);
  constexpr T terms[] = {static_cast<T>(exp2_term(kTerms - 1 - kTerm))...};
  vec_t<T> sum = broadcast(terms[0]);
  for (int k = 1; k < kTerms; ++k) sum = sum * f + terms[k];
  return sum;
}

// 2^x to 2.5 units in the last place; 0 where that is no normal number; a NaN stays. x = n + f with
// a whole n and |f| <= 1/2: the series gives 2^f, and n is added to the exponent in its bits.
template <typename T>
vec_t<T> exp2_lanes(vec_t<T> x) {
  using Set = Exp2<T>;
  const vec_t<T> shifted = x + Set::kRound;
  const vec_t<T> f = x - (shifted - Set::kRound);
  const vec_t<T> series = exp2_series<T>(f, std::make_integer_sequence<int, Set::kTerms>{});
  const vec_t<T> value =
      (vec_t<T>)((bits_t<T>)series + ((bits_t<T>)shifted << Set::kMantissa));  // kRound shifts out
  const vec_t<T> large = x < Set::kMost ? value : x + static_cast<T>(__builtin_inf());
  return x < Set::kLeast ? vec_t<T>{} : large;
}

// log(1 + e) for e in [0, 1] to a few units in the last place of the result, however small e is:
// 2 atanh(t) with t = e / (2 + e) <= 1/3.
template <typename T>
vec_t<T> log1p_lanes(vec_t<T> e) {
  constexpr int kTerms = sizeof(T) == sizeof(float) ? 8 : 17;  // t^2k / (2k + 1)
  const vec_t<T> t = e / (e + T(2));
  const vec_t<T> square = t * t;
  vec_t<T> sum = broadcast(T(1) / (2 * kTerms - 1));
  for (int k = kTerms - 2; k >= 0; --k) sum = sum * square + T(1) / (2 * k + 1);
  return 2 * t * sum;
}

// log2(x) for a normal x > 0, to a unit in the last place of the larger of the result and 1.
// x = 2^n m with m in [3/4, 3/2), so that an x near 1 has no exponent to cancel with; log(m) is
// 2 atanh(t) with t = (m - 1) / (m + 1), |t| <= 1/5.
template <typename T>
vec_t<T> log2_lanes(vec_t<T> x) {
  using Set = Exp2<T>;
  constexpr int kTerms = sizeof(T) == sizeof(float) ? 6 : 12;  // t^2k / (2k + 1)
  const bits_t<T> n = ((bits_t<T>)x - (bits_t<T>)broadcast(T(0.75))) >> Set::kMantissa;
  const vec_t<T> m = (vec_t<T>)((bits_t<T>)x - (n << Set::kMantissa));
  const vec_t<T> t = (m - T(1)) / (m + T(1));
  const vec_t<T> square = t * t;
  vec_t<T> sum = broadcast(static_cast<T>(2 * kLog2E / (2 * kTerms - 1)));
  for (int k = kTerms - 2; k >= 0; --k) {
    sum = sum * square + static_cast<T>(2 * kLog2E / (2 * k + 1));
  }
  return sum * t + __builtin_convertvector(n, vec_t<T>);
}

}  // namespace
}  // namespace ecgfast
