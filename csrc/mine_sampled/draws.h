// What CPU and CUDA kernels of mine_sampled say alike; included after core/dispatch.h or cuda.cuh.
#pragma once

#include "core/philox.h"
#include "mine_sampled/contract.h"

namespace ecgfast::mine_sampled {

// What a draw is for: two ops with one seed do not share their words.
constexpr std::uint32_t kForWeighted = 0;
constexpr std::uint32_t kForUniform = 1;

ECGFAST_HD static inline PhiloxWords words_of(std::int64_t row, std::int64_t sample,
                                              std::uint32_t purpose, PhiloxKey key) {
  return philox(
      {{static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(sample), purpose, 0u}}, key);
}

// The index of who is not valid.
ECGFAST_HD static inline std::int64_t itself(std::int64_t place) { return place < 0 ? 0 : place; }

// Cosines that a log weight is taken of: both logarithms stay finite.
template <typename T>
ECGFAST_HD static inline T highest(double most) {
  const T under_one = T(1) - (sizeof(T) == 8 ? T(1e-15) : T(0x1p-23));
  return static_cast<T>(most) < under_one ? static_cast<T>(most) : under_one;
}
template <typename T>
ECGFAST_HD static inline T lowest() {
  return sizeof(T) == 8 ? T(-1) + T(1e-15) : T(-1) + T(0x1p-23);
}

// What is left of a distance that cancelled to nothing is 0, not less; a NaN stays.
template <typename T>
ECGFAST_HD static inline T squared_distance(T row_square, T column_square, T product) {
  const T square = row_square + column_square - 2 * product;
  return square < 0 ? T(0) : square;
}

// The squared distance that a semi-hard negative lies below.
template <typename T>
ECGFAST_HD static inline T semi_hard_end(T to_positive, T margin, bool squared) {
  if (squared) return to_positive + margin;
  const T end = sqrt(to_positive) + margin;
  return end * end;
}

}  // namespace ecgfast::mine_sampled
