// Sums of gradient parts by the row that owns them, without atomics: whoever sorted the owners has
// put the parts of a row side by side, in an order that nothing changes. Included by CUDA kernels.
#pragma once

#include "core/cuda.cuh"
#include "core/search.h"

namespace ecgfast {

// Blocks of 128 threads on a multiprocessor: 48 registers a thread, 96 in f64. Left alone, the
// assembler takes a few less for some dtypes and spills.
template <typename T>
constexpr int kOwnedBlocks = sizeof(acc_t<T>) == 4 ? 10 : 5;

// Slots [begin, end).
struct Run {
  std::int64_t begin, end;
};

// The slots of a row among ascending owners. All lanes of a warp take part: one half looks for the
// first slot, the other for that of the next row.
__device__ static inline Run run_of(Global<const std::int32_t> owners, std::int64_t count,
                                    std::int64_t row) {
  const std::int64_t found = first_not_below(owners, count, row + lane_index() / 16);
  return {shuffle(found, 0), shuffle(found, 16)};
}

// Calls add(part) for every kWarps-th slot of the run, a warp starting at its own; part_at(slot)
// gives a Part, and of_lane(part, lane), beside it in its namespace, another lane's. Each lane
// looks one slot up: the way to the rows of a part is two loads long, one after the other.
template <typename Part, int kWarps, typename PartAt, typename Add>
__device__ static inline void each_part(const Run& run, const PartAt& part_at, const Add& add) {
  for (std::int64_t s = run.begin + warp_index(); s < run.end; s += 32 * kWarps) {
    const std::int64_t own = s + kWarps * lane_index();
    const Part part = own < run.end ? part_at(own) : Part{};
    const int parts = static_cast<int>(min((run.end - s + kWarps - 1) / kWarps, std::int64_t(32)));
#pragma unroll 4
    for (int lane = 0; lane < parts; ++lane) add(of_lane(part, lane));
  }
}

// The total of what the warps of a block have summed for this thread's column, in their order; lane
// l of a warp holds columns l, 32 + l, ... in sum[]. `sums` is shared: kWarps * 32 * kPerLane.
template <int kWarps, int kPerLane, typename A>
__device__ static inline A total_of_warps(const A (&sum)[kPerLane], Shared<A> sums) {
  static_assert(kWarps == kPerLane, "a block has one thread a column");
  constexpr int kColumns = 32 * kPerLane;
  for (int i = 0; i < kPerLane; ++i) {
    sums[warp_index() * kColumns + 32 * i + lane_index()] = sum[i];
  }
  sync_block();
  A total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += sums[warp * kColumns + thread_index()];
  return total;
}

}  // namespace ecgfast
