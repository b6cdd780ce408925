// Filling the gaps of a row that a block holds in shared memory; see core/gaps.h.
#pragma once

#include "core/cuda.cuh"
#include "core/gaps.h"

namespace ecgfast {

// Fills the gaps among samples [begin, end) of `row`, of which sample i is at x[i - begin]. All
// threads of the block come here together, after a barrier; another one follows here. Each thread
// has a part of the row, and looks for neighbours in those of others only where its own has none.
template <int kThreads, typename A, typename T>
__device__ static inline void fill_gaps(const Global<const T>& row, std::int64_t samples, OnGap how,
                                        const Shared<A>& x, std::int64_t begin, std::int64_t end) {
  const std::int64_t part = (samples + kThreads - 1) / kThreads;
  const int own = thread_index();
  const std::int64_t first = own * part;
  const std::int64_t stop = min(samples, first + part);
  ECGFAST_SHARED(std::int64_t, first_value, kThreads);  // places, -1 is none
  ECGFAST_SHARED(std::int64_t, last_value, kThreads);
  first_value[own] = -1;
  last_value[own] = -1;
  for (std::int64_t i = first; i < stop; ++i) {
    if (is_gap(static_cast<A>(row[i]))) continue;
    if (last_value[own] < 0) first_value[own] = i;
    last_value[own] = i;
  }
  sync_block();
  std::int64_t before = -1;
  for (int other = own - 1; other >= 0 && before < 0; --other) before = last_value[other];
  for (std::int64_t i = first; i < stop; ++i) {
    if (!is_gap(static_cast<A>(row[i]))) {
      before = i;
      continue;
    }
    std::int64_t after = i + 1;
    while (after < stop && is_gap(static_cast<A>(row[after]))) ++after;
    const std::int64_t gap_end = after;
    if (after == stop) {
      after = -1;
      for (int other = own + 1; other < kThreads && after < 0; ++other) after = first_value[other];
    }
    const A left = before < 0 ? A(0) : static_cast<A>(row[before]);
    const A right = after < 0 ? A(0) : static_cast<A>(row[after]);
    for (; i < gap_end; ++i) {
      if (i < begin || i >= end) continue;
      x[i - begin] = how == OnGap::zero ? A(0) : across_gap(i, before, left, after, right);
    }
    --i;
  }
  sync_block();
}

}  // namespace ecgfast
