// Floats as unsigned integers of the same order, with the NaN at both ends.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace ecgfast::moving_median {

template <typename Bits>
ECGFAST_HD static inline Bits ordered(Bits bits) {
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

template <typename Bits>
ECGFAST_HD static inline Bits unordered(Bits key) {
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  return (key & kSign) != 0 ? key & ~kSign : ~key;
}

}  // namespace ecgfast::moving_median
