// Philox for many counters at once, one in each 64-bit lane: a compiler that is left to find the
// 32 x 32 -> 64 multiplication by itself takes a scalar one or a 64-bit one. Included by CPU
// kernels alone, as core/simd.h is; the words are those of core/philox.h.
#pragma once

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/philox.h"
#include "core/simd.h"

namespace ecgfast {
namespace {

typedef std::uint64_t words_t __attribute__((vector_size(kVectorBytes)));

constexpr int kWordLanes = kVectorBytes / 8;

// The product of the lower halves.
static inline words_t multiply_halves(words_t a, words_t b) {
#if defined(__AVX512F__)
  return (words_t)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (words_t)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (words_t)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// words[w][i] is word w of the counter that has first + i for its own first word. What is in the
// upper halves of lanes is never looked at.
template <int kCount>
void philox_lanes(std::uint32_t (&words)[4][kCount], PhiloxWords first, PhiloxKey key) {
  static_assert(kCount % kWordLanes == 0);
  words_t lanes{};
  for (int lane = 0; lane < kWordLanes; ++lane) lanes[lane] = static_cast<std::uint64_t>(lane);
  for (int from = 0; from < kCount; from += kWordLanes) {
    const words_t zero{};
    words_t c[4] = {lanes + (first.word[0] + static_cast<std::uint32_t>(from)),
                    zero + first.word[1], zero + first.word[2], zero + first.word[3]};
    std::uint32_t k0 = key.word[0];
    std::uint32_t k1 = key.word[1];
    for (int round = 0; round < 10; ++round) {
      const words_t p0 = multiply_halves(c[0], zero + 0xD2511F53u);
      const words_t p1 = multiply_halves(c[2], zero + 0xCD9E8D57u);
      c[0] = (p1 >> 32) ^ c[1] ^ k0;
      c[1] = p1;
      c[2] = (p0 >> 32) ^ c[3] ^ k1;
      c[3] = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (int w = 0; w < 4; ++w) {
      for (int lane = 0; lane < kWordLanes; ++lane) {
        words[w][from + lane] = static_cast<std::uint32_t>(c[w][lane]);
      }
    }
  }
}

}  // namespace
}  // namespace ecgfast
