// Rows that share their statistics, for CPU and CUDA; included after core/dispatch.h or cuda.cuh.
#pragma once

#include <cmath>

#include "lead_norm/contract.h"

namespace ecgfast::lead_norm {

// Rows [first, first + count), counted as n * L + l.
struct Group {
  std::int64_t first, count;
};

// Group i of a (N, L, T) view, whose statistics are (N, G, ...).
ECGFAST_HD static inline Group group_at(const View& x, const View& statistics, std::int64_t i) {
  const std::int64_t count = x.size[1] / statistics.size[1];
  return {i * count, count};
}

// An index of extremes; 0 if it has changed since forward, so that no other memory is touched.
ECGFAST_HD static inline std::int64_t safe_index(std::int64_t index, std::int64_t samples) {
  return index >= 0 && index < samples ? index : 0;
}

// What min-max does with a group, in the type of its sums.
template <typename A>
struct Scale {
  A least, range, low, high;

  ECGFAST_HD A share(A x) const { return (x - least) / range; }
  ECGFAST_HD A value(A u) const {
    const A y = low * (A(1) - u) + high * u;
    return y < low ? low : y > high ? high : y;  // a NaN stays
  }
};

// The range of a flat group is 1, since all of it is its least sample; what is not finite is NaN.
template <typename A>
ECGFAST_HD static inline Scale<A> scale_of(A least, A largest, A low, A high) {
  const A range = largest - least;
  const A finite = range * A(0);  // 0, or NaN
  return {least + finite, (range == A(0) ? A(1) : range) + finite, low, high};
}

// 1 / sqrt(std^2 + eps), NaN for what is no standard deviation.
template <typename A>
ECGFAST_HD static inline A rstd_of(A std, A eps) {
  const bool holds = std > A(0) && std * A(0) == A(0);
  return holds ? A(1) / sqrt(std * std + eps) : A(0) / (std * A(0));
}

}  // namespace ecgfast::lead_norm
