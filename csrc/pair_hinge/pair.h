// What CPU and CUDA kernels of pair_hinge say alike; included after core/dispatch.h or cuda.cuh.
#pragma once

#include "core/relation.h"
#include "pair_hinge/contract.h"

namespace ecgfast::pair_hinge {

// What a pair is; kClose is set beside the others.
constexpr std::int32_t kNeither = 0;
constexpr std::int32_t kPositive = 1;
constexpr std::int32_t kNegative = 2;
constexpr std::int32_t kClose = 4;

ECGFAST_HD static inline bool positive(std::int32_t kind) { return (kind & 3) == kPositive; }
ECGFAST_HD static inline bool negative(std::int32_t kind) { return (kind & 3) == kNegative; }
ECGFAST_HD static inline bool close_pair(std::int32_t kind) { return kind > kClose; }

// max(0, h), where a NaN stays.
template <typename A>
ECGFAST_HD static inline A hinge(A h) {
  return h <= 0 ? A(0) : h;
}

// From dLoss/dd to what the difference of the rows is multiplied by.
template <typename A>
ECGFAST_HD static inline A coefficient(Metric metric, A grad, A d) {
  if (metric == Metric::euclidean) return d == 0 ? A(0) : grad / d;
  return metric == Metric::sqeuclidean ? 2 * grad : grad;
}

// How many of `count` ascending values are at most t.
template <typename Values, typename A>
ECGFAST_HD static inline std::int64_t at_most(const Values& values, std::int64_t count, A t) {
  std::int64_t first = 0;
  while (count > 0) {
    const std::int64_t half = count / 2;
    const bool below = values[first + half] <= t;
    first = below ? first + half + 1 : first;
    count = below ? count - half - 1 : half;
  }
  return first;
}

// Whether a coefficient of a triplet's pair bears the mark of a near pair, the wrong sign: the
// strip holds -c, and c has the sign of g for a positive and the other one for a negative.
template <typename A>
ECGFAST_HD static inline bool marked(A kept, A g, bool is_positive_pair) {
  return kept != 0 && kept == kept && ((kept > 0) == (g > 0)) == is_positive_pair;
}

}  // namespace ecgfast::pair_hinge
