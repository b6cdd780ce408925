// 2^x and log2(x) of vectors, kCount abreast: their chains hide one another. Included by CPU
// kernels alone: all is in an anonymous namespace, so that no instruction set can lend code to
// another.
#pragma once

#include "core/simd.h"

namespace ecgfast {
namespace {

// 2^f on [-1/2, 1/2], and log2(1 + u) / u on [-1/4, 1/2], from the constant on: minimax, by Remez.
template <typename T>
struct Curves;
template <>
struct Curves<float> {
  using Unsigned = std::uint32_t;
  static constexpr int kMantissa = 23;
  static constexpr float kRound = 0x1.8p23f;
  static constexpr float kLeast = -126;
  static constexpr std::int32_t kThreeQuarters = 0x3f400000;  // the bits of 3/4
  static constexpr float kExp2[] = {1.0f,           0.693147182f,   0.240226522f,   0.0555032715f,
                                    0.00961799454f, 0.00134004315f, 0.000154780224f};
  static constexpr float kLog2[] = {1.44269502f,  -0.721348405f, 0.480903596f,
                                    -0.36058253f, 0.288139611f,  -0.242505386f,
                                    0.216661394f, -0.176379681f, 0.080215238f};
};
template <>
struct Curves<double> {
  using Unsigned = std::uint64_t;
  static constexpr int kMantissa = 52;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLeast = -1022;
  static constexpr std::int64_t kThreeQuarters = 0x3fe8000000000000;
  static constexpr double kExp2[] = {1.0,
                                     0.69314718055994529,
                                     0.24022650695910072,
                                     0.055504108664821701,
                                     0.009618129107628496,
                                     0.0013333558146390351,
                                     0.00015403530393339536,
                                     1.5252733856295391e-05,
                                     1.3215486833911465e-06,
                                     1.0178051192189612e-07,
                                     7.0548880175973237e-09,
                                     4.4566754533635883e-10,
                                     2.5742060226625325e-11};
  static constexpr double kLog2[] = {
      1.4426950408889634,   -0.72134752044448114,  0.4808983469629976,   -0.36067376022259307,
      0.2885390081753878,   -0.24044917341672728,  0.20609929172795996,  -0.18033688556332017,
      0.16029944825255232,  -0.14426926333482568,  0.13115368774571912,  -0.12023021526594026,
      0.11099550251710034,  -0.10299157914191683,  0.095816635470467093, -0.090081705186358552,
      0.087752108227449777, -0.086487994051109504, 0.073957090518387211, -0.04313026343071065,
      0.011926212190253575};
};

template <typename T>
vec_t<T> least(vec_t<T> a, vec_t<T> b) {
  return a < b ? a : b;
}
template <typename T>
vec_t<T> most(vec_t<T> a, vec_t<T> b) {
  return a > b ? a : b;
}

// kCount polynomials, abreast.
template <typename T, int kCount, int kTerms>
void follow(const T (&terms)[kTerms], const vec_t<T>* x, vec_t<T>* y) {
  for (int r = 0; r < kCount; ++r) y[r] = broadcast(terms[kTerms - 1]);
#pragma GCC unroll 32
  for (int k = kTerms - 2; k >= 0; --k) {
#pragma GCC unroll 16
    for (int r = 0; r < kCount; ++r) y[r] = y[r] * x[r] + terms[k];
  }
}

// 2^x for x <= 0; 0 where that would be no normal number.
template <typename T, int kCount>
void exp2_of(vec_t<T>* x) {
  using C = Curves<T>;
  vec_t<T> whole[kCount];
  vec_t<T> rest[kCount];
  vec_t<T> power[kCount];
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
    whole[r] = x[r] + C::kRound;
    rest[r] = x[r] - (whole[r] - C::kRound);
  }
  follow<T, kCount>(C::kExp2, rest, power);
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
    const auto scaled = (bits_t<T>)power[r] + ((bits_t<T>)whole[r] << C::kMantissa);
    x[r] = x[r] >= C::kLeast ? (vec_t<T>)scaled : vec_t<T>{};
  }
}

// log2(x) for normal x > 0: x = 2^e m with m in [3/4, 3/2), so that the logarithm of an x near 1
// has no exponent to cancel with.
template <typename T, int kCount>
void log2_of(vec_t<T>* x) {
  using C = Curves<T>;
  bits_t<T> exponent[kCount];
  vec_t<T> u[kCount];
  vec_t<T> ratio[kCount];
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
    exponent[r] = ((bits_t<T>)x[r] - C::kThreeQuarters) >> C::kMantissa;
    u[r] = (vec_t<T>)((bits_t<T>)x[r] - (exponent[r] << C::kMantissa)) - T(1);
  }
  follow<T, kCount>(C::kLog2, u, ratio);
#pragma GCC unroll 16
  for (int r = 0; r < kCount; ++r) {
    x[r] = ratio[r] * u[r] + __builtin_convertvector(exponent[r], vec_t<T>);
  }
}

}  // namespace
}  // namespace ecgfast
