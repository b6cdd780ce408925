// Resampling of a stretch of one signal in shared memory by a block; see core/polyphase.h.
#pragma once

#include "core/cuda.cuh"
#include "core/polyphase.h"

namespace ecgfast {

// Where the outputs of a stretch stand, in 32 bits, which divide ten times as fast as 64.
struct Stretch {
  unsigned up, down;
  unsigned remainder, row;  // of the first output
};

// For outputs begin + j, while j * down < 2^31.
__device__ static inline Stretch stretch_from(const Polyphase& p, std::int64_t begin) {
  const std::int64_t last = first_input(p, begin) + p.taps.size[1] - 1;
  return {static_cast<unsigned>(p.up), static_cast<unsigned>(p.down),
          static_cast<unsigned>(begin * p.down + p.offset - last * p.up),
          static_cast<unsigned>(begin % p.up)};
}

// Output begin + j. `taps` is the table, in shared or global memory, a row every tap_step; x[0] is
// the input first_input(p, begin). A tap_step of odd length keeps 32 rows in 32 banks.
template <typename A, typename Taps, typename X>
__device__ static inline A resample_one(const Stretch& s, const Taps& taps, int tap_step, int per,
                                        const X& x, int j) {
  const unsigned step = static_cast<unsigned>(j);
  const int row = static_cast<int>((s.row + step) % s.up) * tap_step;
  const int first = static_cast<int>((s.remainder + step * s.down) / s.up);
  A total = 0;
  for (int begin = 0; begin < per; begin += kStretchOfTaps) {
    const int end = min(per, begin + static_cast<int>(kStretchOfTaps));
    A sum = 0;
    for (int k = begin; k < end; ++k) sum += taps[row + k] * static_cast<A>(x[first + k]);
    total += sum;
  }
  return total;
}

}  // namespace ecgfast
