// Binary search, for CPU and CUDA kernels: every function is static.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace ecgfast {

// Index of the first of `count` ascending values that is not below `bound`; count if all are.
template <typename Values, typename Value>
ECGFAST_HD static inline std::int64_t first_not_below(const Values& values, std::int64_t count,
                                                      Value bound) {
  std::int64_t first = 0;
  while (count > 0) {
    const std::int64_t half = count / 2;
    const bool below = values[first + half] < bound;
    first = below ? first + half + 1 : first;
    count = below ? count - half - 1 : half;
  }
  return first;
}

}  // namespace ecgfast
