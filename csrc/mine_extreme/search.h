// What CPU and CUDA kernels of mine_extreme say alike; included after core/dispatch.h or cuda.cuh.
#pragma once

#include "mine_extreme/contract.h"

namespace ecgfast::mine_extreme {

// What is sought in a row of products. Everything is written for the nearest; the farthest is the
// nearest with its sign turned.
template <typename A>
struct Sought {
  A sign;           // 1 the nearest, -1 the farthest
  A slack;          // 3 c
  A own;            // 4 c h_i: both sides' share of the row itself
  A surely, maybe;  // v above which a column is, or may be, beyond the floor
  A floor;          // direct distances have to be above it

  ECGFAST_HD A at_least(A half, A product) const { return sign * (half - product) - slack * half; }
  ECGFAST_HD A at_most(A half, A product) const { return sign * (half - product) + slack * half; }
};

template <typename A>
ECGFAST_HD static inline Sought<A> sought(const Pairs& job, A row_half, bool farthest) {
  const A c = static_cast<A>(job.slack);
  const A nothing = -static_cast<A>(__builtin_huge_val());
  return {farthest ? A(-1) : A(1), 3 * c, 4 * c * row_half, nothing, nothing, A(-1)};
}

// The nearest beyond a partner at direct distance `distance`, whose half is `half`.
template <typename A>
ECGFAST_HD static inline Sought<A> sought_beyond(const Pairs& job, A row_half, A half, A distance) {
  Sought<A> s = sought(job, row_half, false);
  const A v = distance / 2 - row_half;
  const A apart = s.own + s.slack * half;
  return {s.sign, s.slack, s.own, v + apart, v - apart, distance};
}

// Where an index points that is not valid.
ECGFAST_HD static inline std::int64_t itself(std::int64_t place) { return place < 0 ? 0 : place; }

}  // namespace ecgfast::mine_extreme
