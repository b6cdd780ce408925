// Gaps of a signal: samples that are NaN or infinite, and what is put into them. core/gaps_lanes.h
// and core/gaps.cuh find and fill them; a row without gaps pays for the look alone.
#pragma once

#include "core/dispatch.h"

namespace ecgfast {

// interpolate: straight lines between the neighbours, which the ends hold; a row without any value
// becomes zeros. As numpy.interp has it.
enum class OnGap : int { keep = 0, zero = 1, interpolate = 2 };

template <typename A>
ECGFAST_HD static inline bool is_gap(A value) {
  return !(value - value == A(0));
}

// A gap's sample i between its neighbours' places and values; a place of -1 is none.
template <typename A>
ECGFAST_HD static inline A across_gap(std::int64_t i, std::int64_t before, A left,
                                      std::int64_t after, A right) {
  if (before < 0) return after < 0 ? A(0) : right;
  if (after < 0) return left;
  const double slope = (double(right) - double(left)) / double(after - before);
  return static_cast<A>(double(left) + slope * double(i - before));
}

}  // namespace ecgfast
