// Random numbers by counter: what is drawn depends on the key and the counter alone, so that no
// batch, thread count or device shows. For CPU and CUDA kernels: every function is static.
//
// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11.
// All that follows is one operation a line, without branches, so that loops over counters become
// vectors. Logarithm and sine are the house's own for the same reason, and so that CPU and CUDA
// differ by rounding alone; the polynomials are minimax fits (relative error before rounding below
// 6e-9). Against float64, with and without fused multiply-add: the radius of a normal is within
// 1.5e-7 of its value over all 2^24, sine and cosine within 1.3e-7 over the circle.
#pragma once

#include <cmath>
#include <cstring>

#include "core/dispatch.h"

namespace ecgfast {

struct PhiloxKey {
  std::uint32_t word[2];
};

struct PhiloxWords {
  std::uint32_t word[4];
};

ECGFAST_HD static inline PhiloxKey philox_key(std::int64_t seed) {
  const std::uint64_t bits = static_cast<std::uint64_t>(seed);
  return {{static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)}};
}

// Four words of 32 random bits.
ECGFAST_HD static inline PhiloxWords philox(PhiloxWords counter, PhiloxKey key) {
  std::uint32_t c0 = counter.word[0], c1 = counter.word[1];
  std::uint32_t c2 = counter.word[2], c3 = counter.word[3];
  std::uint32_t k0 = key.word[0], k1 = key.word[1];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(0xD2511F53u) * c0;
    const std::uint64_t p1 = static_cast<std::uint64_t>(0xCD9E8D57u) * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform in (0, 1), never an end: (24 bits + 1/2) / 2^24, exactly.
ECGFAST_HD static inline double uniform(std::uint32_t word) {
  return (static_cast<double>(word >> 8) + 0.5) * 0x1p-24;
}

// Uniform among 0 .. count - 1, to 2^-32 count.
ECGFAST_HD static inline std::int64_t below(std::uint32_t word, std::int64_t count) {
  return static_cast<std::int64_t>(
      (static_cast<std::uint64_t>(word) * static_cast<std::uint64_t>(count)) >> 32);
}

ECGFAST_HD static inline std::uint32_t word_of(float number) {
  std::uint32_t word = 0;
  std::memcpy(&word, &number, sizeof word);
  return word;
}

ECGFAST_HD static inline float float_of(std::uint32_t word) {
  float number = 0;
  std::memcpy(&number, &word, sizeof number);
  return number;
}

// By bits: of a branch on floats the compiler makes no vectors, since an operation might trap.
ECGFAST_HD static inline float choose(bool first, float a, float b) {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(first);
  return float_of((word_of(a) & mask) | (word_of(b) & ~mask));
}

// -2 log(u) of the u that uniform() makes of the word, in float.
ECGFAST_HD static inline float minus_two_log(std::uint32_t word) {
  const float k = static_cast<float>(static_cast<std::int32_t>(word >> 8));
  // Near 1, u has 25 bits, but u - 1 has 24: there the logarithm starts from this.
  const float under_one = ((k - 0x1p24f) + 0.5f) * 0x1p-24f;
  const float u = (k + 0.5f) * 0x1p-24f;
  // u = 2^e m with m in [sqrt(1/2), sqrt(2))
  const std::uint32_t whole = (word_of(u) - 0x3f3504f3u) & 0xff800000u;
  const float m = float_of(word_of(u) - whole);
  const float e = static_cast<float>(static_cast<std::int32_t>(whole) >> 23);
  const float f = choose(whole == 0, under_one, m - 1.0f);
  float p = -7.634429906e-02f;
  p = p * f + 1.276155036e-01f;
  p = p * f + -1.316019505e-01f;
  p = p * f + 1.420176247e-01f;
  p = p * f + -1.662335648e-01f;
  p = p * f + 2.000122667e-01f;
  p = p * f + -2.500082106e-01f;
  p = p * f + 3.333333171e-01f;
  const float square = f * f;
  const float log1p = f + square * (f * p - 0.5f);
  return -2.0f * (e * 0.693147180559945f + log1p);
}

struct Turned {
  float sine, cosine;
};

// Sine and cosine of turn / 2^32 of a full turn; the nearest quarter is taken off exactly.
ECGFAST_HD static inline Turned sincos_turn(std::uint32_t turn) {
  const std::uint32_t quarter = (turn + 0x20000000u) >> 30;
  const std::int32_t rest = static_cast<std::int32_t>(turn - (quarter << 30));
  const float x = static_cast<float>(rest) * 1.462918079267160e-09f;  // 2 pi / 2^32
  const float z = x * x;
  const float s = x + x * z * ((-1.951495663e-04f * z + 8.332158400e-03f) * z + -1.666665457e-01f);
  const float c =
      1.0f - 0.5f * z + z * z * ((2.443808911e-05f * z + -1.388736447e-03f) * z + 4.166664681e-02f);
  const bool odd = (quarter & 1u) != 0;
  return {float_of(word_of(choose(odd, c, s)) ^ ((quarter & 2u) << 30)),
          float_of(word_of(choose(odd, s, c)) ^ (((quarter + 1u) & 2u) << 30))};
}

struct Normals {
  float first, second;
};

// Two independent standard normals by Box and Muller: 24 bits for the radius, 32 for the angle.
// None is beyond 5.89, sqrt(-2 log 2^-25).
ECGFAST_HD static inline Normals normals(std::uint32_t radius, std::uint32_t angle) {
  const float r = sqrtf(minus_two_log(radius));
  const Turned direction = sincos_turn(angle);
  return {r * direction.cosine, r * direction.sine};
}

}  // namespace ecgfast
