// The columns of a clip's plan, and the arithmetic that CPU and CUDA share.
#pragma once

#include <cmath>

#include "clip_transform/contract.h"
#include "core/philox.h"

namespace ecgfast::clip_transform {

constexpr int kTurned = 0;  // whether the map below is to be looked at
constexpr int kFlip = 1;
constexpr int kTop = 2;
constexpr int kLeft = 3;
constexpr int kMap = 4;      // u0, ux, uy, v0, vx, vy in units of 2^-32 pixel
constexpr int kFrames = 10;  // from here on one a shown frame

constexpr std::int64_t kMostSide = 32768;
constexpr int kPlaces = 32;   // bits of a place behind the point
constexpr int kShares = 15;   // of a place between two pixels
constexpr int kWeights = 22;  // of a weight; 8 more and the sign fit into 32
constexpr int kLanes8 = 16;   // planes that the CPU turns side by side

// Bytes from row to row of the CPU's scratch: more than W, since between two pixels takes both.
static inline std::int64_t scratch_stride(std::int64_t width) { return (width + 16) / 16 * 16; }

// Levels; kLanes8 planes to be turned; as many rows before and after; places of a row.
static inline std::int64_t scratch_bytes(std::int64_t planes, std::int64_t height,
                                         std::int64_t width) {
  return scratch_stride(width) * (planes * height + kLanes8 * (height + 1) + 2 * kLanes8 + 20);
}

// A place on a frame: the pixel to its upper left, and the weights of that one, the one to its
// right, and the two below, kWeights bits in all; no weight if it lies beyond.
struct Place4 {
  std::int32_t x, y;
  std::int32_t weight[4];
};

ECGFAST_HD static inline Place4 place_at(std::int64_t u, std::int64_t v, std::int32_t width,
                                         std::int32_t height) {
  const std::int64_t one = std::int64_t{1} << kPlaces;
  const std::int64_t half = one >> (kShares + 1);
  const bool inside = u >= 0 && v >= 0 && u <= (width - 1) * one && v <= (height - 1) * one;
  const std::int64_t kept = -static_cast<std::int64_t>(inside);
  const std::int64_t at_u = u & kept;
  const std::int64_t at_v = v & kept;
  const std::int32_t fx =
      static_cast<std::int32_t>(((at_u & (one - 1)) + half) >> (kPlaces - kShares));
  const std::int32_t fy =
      static_cast<std::int32_t>(((at_v & (one - 1)) + half) >> (kPlaces - kShares));
  constexpr int kLess = 2 * kShares - kWeights;
  const std::int32_t both = (fx * fy + (1 << (kLess - 1))) >> kLess;
  const std::int32_t right = (fx << (kWeights - kShares)) - both;
  const std::int32_t below = (fy << (kWeights - kShares)) - both;
  const std::int32_t mask = static_cast<std::int32_t>(kept);
  return {static_cast<std::int32_t>(at_u >> kPlaces),
          static_cast<std::int32_t>(at_v >> kPlaces),
          {((1 << kWeights) - right - below - both) & mask, right & mask, below & mask,
           both & mask}};
}

ECGFAST_HD static inline std::int32_t blended(std::int32_t a, std::int32_t b, std::int32_t c,
                                              std::int32_t d, const std::int32_t* weight) {
  return (a * weight[0] + b * weight[1] + c * weight[2] + d * weight[3] + (1 << (kWeights - 1))) >>
         kWeights;
}

// What is known of the levels of a clip.
struct Found {
  std::int32_t low, high;
  std::int64_t sum, squares;
};

ECGFAST_HD static inline bool looks_at_levels(How how) {
  return how == How::min_max || how == How::standard;
}

// What a level becomes: (level - base - centre) / spread.
struct Line {
  std::int32_t base;
  float centre, spread;
};

ECGFAST_HD static inline Line line_of(How how, const Found& found, std::int64_t count, double mean,
                                      double std) {
  std::int32_t base = 0;
  double centre = 0;
  double spread = how == How::unit ? 255 : 1;
  if (looks_at_levels(how)) {
    base = found.low;
    const std::int32_t range = found.high - found.low;
    if (how == How::min_max && range > 0) spread = range;
    if (how == How::standard && range > 0) {
      // from the least level on, and the mean from the nearest: what has nearly one level loses no
      // digit
      const std::int64_t sum = found.sum - count * base;
      const std::int64_t squares = found.squares - base * (2 * found.sum - count * base);
      centre = static_cast<double>(sum) / static_cast<double>(count);
      spread = sqrt(static_cast<double>(squares) / static_cast<double>(count) - centre * centre);
      const double whole = floor(centre + 0.5);
      base += static_cast<std::int32_t>(whole);
      centre -= whole;
    }
  }
  return {base, static_cast<float>(centre + mean * spread), static_cast<float>(spread * std)};
}

ECGFAST_HD static inline float scaled(std::int32_t level, const Line& line) {
  return (static_cast<float>(level - line.base) - line.centre) / line.spread;
}

// The bits of a number as a half, to the nearest, the even one of two.
ECGFAST_HD static inline std::int16_t half_of(float number, DType kept) {
  const std::uint32_t word = word_of(number);
  const std::uint32_t sign = (word >> 16) & 0x8000u;
  const std::uint32_t size = word & 0x7fffffffu;
  std::uint32_t bits;
  if (kept == DType::bf16) {
    bits = (size + 0x7fffu + ((size >> 16) & 1u)) >> 16;
  } else if (size >= 0x47800000u) {
    bits = 0x7c00u;  // 65536 and more
  } else if (size < 0x38800000u) {
    bits = word_of(float_of(size) + 0.5f) - 0x3f000000u;  // steps of 2^-24, as of 0.5 to 1
  } else {
    bits = (size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13;
  }
  return static_cast<std::int16_t>(sign | bits);
}

}  // namespace ecgfast::clip_transform
