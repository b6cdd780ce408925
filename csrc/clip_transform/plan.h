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
constexpr int kPlaces = 32;  // bits of a place behind the point
constexpr int kShares = 15;  // of a place between two pixels
constexpr int kSteps = 7;    // of a level between two whole ones: 16 bits hold it, and a difference
constexpr int kTurns = 16;   // planes that the CPU turns side by side

// A worker's scratch in bytes: places of a row; kTurns planes to be turned, a pixel of all after
// the other, and beyond the last row black ones, with what lies right of the last pixel and below
// it; a row of them turned; the same as bytes; a row of each; levels.
static inline std::int64_t scratch_bytes(std::int64_t planes, std::int64_t height,
                                         std::int64_t width) {
  return 12 * width + kTurns * (2 * ((height + 2) * width + 2) + 4 * width) +
         planes * height * width;
}

// The pixel to the upper left of a place, and the shares of the next ones, in units of 2^-kShares.
// What lies beyond the frame is in the row below it.
struct Spot {
  std::int32_t x, y, right, below;
};

// Places are whole numbers, in doubles, which have lanes everywhere: under 2^53 nothing is rounded.
ECGFAST_HD static inline Spot spot_at(double u, double v, double width, double height) {
  constexpr double kPixel = 1.0 / static_cast<double>(std::int64_t{1} << kPlaces);
  constexpr double kShare = 1 << kShares;
  // one after the other, without branches, so that loops over places become vectors
  double inside = u >= 0 ? 1.0 : 0.0;
  inside = v >= 0 ? inside : 0.0;
  inside = u * kPixel <= width - 1 ? inside : 0.0;
  inside = v * kPixel <= height - 1 ? inside : 0.0;
  const double at_u = u * kPixel * inside;
  const double at_v = v * kPixel * inside + height * (1.0 - inside);
  const std::int32_t x = static_cast<std::int32_t>(at_u);
  const std::int32_t y = static_cast<std::int32_t>(at_v);
  return {x, y, static_cast<std::int32_t>((at_u - x) * kShare),
          static_cast<std::int32_t>((at_v - y) * kShare)};
}

// Between two numbers at a share, to the nearest step: one instruction where there are 16 bits.
ECGFAST_HD static inline std::int16_t between(std::int16_t a, std::int16_t b, std::int16_t share) {
  const std::int16_t whole = static_cast<std::int16_t>(b - a);
  const int part = ((static_cast<int>(whole) * static_cast<int>(share)) >> (kShares - 1)) + 1;
  return static_cast<std::int16_t>(a + static_cast<std::int16_t>(part >> 1));
}

// The level between four, which come in steps.
ECGFAST_HD static inline std::int16_t level_between(std::int16_t a, std::int16_t b, std::int16_t c,
                                                    std::int16_t d, std::int16_t right,
                                                    std::int16_t below) {
  const std::int16_t level = between(between(a, b, right), between(c, d, right), below);
  return static_cast<std::int16_t>(static_cast<std::int16_t>(level + (1 << (kSteps - 1))) >>
                                   kSteps);
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
