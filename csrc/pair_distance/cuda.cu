// CUDA kernels of pair_distance; see contract.h.
#include "core/cuda.cuh"
#include "core/owned.cuh"
#include "pair_distance/contract.h"
#include "pair_distance/pair.h"

namespace ecgfast::pair_distance {

template <Metric metric, typename A>
__device__ static inline Part<metric, A> of_lane(const Part<metric, A>& part, int lane) {
  if constexpr (metric == Metric::cosine) {
    return {shuffle(part.other, lane), shuffle(part.weight, lane), shuffle(part.scale, lane),
            shuffle(part.distance, lane)};
  } else {
    return {shuffle(part.other, lane), shuffle(part.weight, lane)};
  }
}

namespace cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kColumns = kThreads;  // of a block of backward: four a lane, then one a thread

// One warp a row. Grid: rows / 4. Reads the row, writes its length.
template <typename T>
__global__ void __launch_bounds__(kThreads) norms_kernel(Norms job) {
  using A = acc_t<T>;
  const std::int64_t r = static_cast<std::int64_t>(block_index()) * kWarps + warp_index();
  if (r >= job.x.size[0]) return;  // the whole warp
  const Global<const T> x = record<const T>(job.x, r);
  double squares = 0;
  for (std::int64_t d = lane_index(); d < job.x.size[1]; d += 32) {
    const double value = static_cast<double>(static_cast<A>(x[d]));
    squares += value * value;
  }
  squares = warp_sum(squares);
  if (lane_index() == 0) global<double>(job.norm)[r] = length_of<A>(squares);
}

// One warp a pair. Grid: K / 4. Reads two rows, and with cosine their lengths; writes one distance
// and two owners.
template <Metric metric, typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward job) {
  using A = acc_t<T>;
  const std::int64_t count = job.rows.size[0];
  const std::int64_t k = static_cast<std::int64_t>(block_index()) * kWarps + warp_index();
  if (k >= count) return;  // the whole warp
  const bool valid = counts(job, k);
  const Pair pair = pair_at(job, k);
  const bool readable = valid && inside(job, pair);
  A distance = valid && !readable ? static_cast<A>(nan("")) : A(0);
  bool owned = false;
  if (readable && is_undefined<metric>(job, pair)) {
    distance = 1;
  } else if (readable) {
    const A scale_x = scale_of<metric, A>(job.norm_x, pair.row);
    const A scale_y = scale_of<metric, A>(job.norm_y, pair.column);
    const bool turned = scale_x > scale_y;
    const Global<const T> x = record<const T>(job.x, pair.row);
    const Global<const T> y = record<const T>(job.y, pair.column);
    const A s = turned ? scale_y : scale_x;
    const A t = turned ? scale_x : scale_y;
    A sum = 0;
    for (std::int64_t d = lane_index(); d < job.x.size[1]; d += 32) {
      const A own = static_cast<A>(x[d]);
      const A other = static_cast<A>(y[d]);
      sum += term<metric>(turned ? other : own, turned ? own : other, s, t);
    }
    distance = finish<metric>(warp_sum(sum));
    owned = metric != Metric::euclidean || distance != 0;
  }
  if (lane_index() != 0) return;
  const Global<std::int32_t> owners = global<std::int32_t>(job.owners);
  global<A>(job.distance)[k] = distance;
  owners[k] = owned ? static_cast<std::int32_t>(pair.row) : kNobody;
  owners[count + k] = owned ? static_cast<std::int32_t>(pair.column) : kNobody;
  if (valid && !readable && job.outside.data != nullptr) {
    atomic_or(update<int>(job.outside), 1);
  }
}

// One block a row of x and 128 columns. Grid: N, D / 128. Reads the row, its slots, their pairs and
// a row of y for each, writes dx. Warps take every fourth slot; their sums meet in their order.
template <Metric metric, typename T>
__global__ void __launch_bounds__(kThreads, kOwnedBlocks<T>) backward_kernel(Backward job) {
  using A = acc_t<T>;
  ECGFAST_SHARED(A, sums, kWarps * kColumns);
  const std::int64_t r = block_index();
  const std::int64_t length = job.x.size[1];
  const std::int64_t column = static_cast<std::int64_t>(block_index_y()) * kColumns;
  const Global<const T> x = record<const T>(job.x, r);
  const Global<const std::int64_t> slots = global<const std::int64_t>(job.slots);
  const A scale = scale_of<metric, A>(job.norm_x, r);
  A own[kColumns / 32];
  for (int i = 0; i < kColumns / 32; ++i) {
    const std::int64_t d = column + 32 * i + lane_index();
    own[i] = d < length ? static_cast<A>(x[d]) : A(0);
  }
  A sum[kColumns / 32] = {};
  each_part<Part<metric, A>, kWarps>(
      run_of(global<const std::int32_t>(job.owners), job.owners.size[0], r),
      [&](std::int64_t s) { return part_of<metric, A>(job, slots[s], scale); },
      [&](const Part<metric, A>& part) {
        const Global<const T> y = record<const T>(job.y, part.other);
        for (int i = 0; i < kColumns / 32; ++i) {
          const std::int64_t d = column + 32 * i + lane_index();
          if (d < length) sum[i] += pull(part, own[i], static_cast<A>(y[d]), scale);
        }
      });
  const A total = total_of_warps<kWarps>(sum, sums);
  if (column + thread_index() >= length) return;
  record<T>(job.grad_x, r)[column + thread_index()] = static_cast<T>(total);
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>(count); }

}  // namespace

void norms(const Norms& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Grid grid{blocks((job.x.size[0] + kWarps - 1) / kWarps)};
    launch<norms_kernel<T>>(grid, kThreads, 0, stream, job);
  });
}

void forward(const Forward& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_metric(job.metric, [&](auto constant) {
      constexpr Metric metric = decltype(constant)::value;
      const Grid grid{blocks((job.rows.size[0] + kWarps - 1) / kWarps)};
      launch<forward_kernel<metric, T>>(grid, kThreads, 0, stream, job);
    });
  });
}

void backward(const Backward& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_metric(job.metric, [&](auto constant) {
      constexpr Metric metric = decltype(constant)::value;
      const Grid grid{blocks(job.x.size[0]), blocks((job.x.size[1] + kColumns - 1) / kColumns)};
      launch<backward_kernel<metric, T>>(grid, kThreads, 0, stream, job);
    });
  });
}

}  // namespace cuda
}  // namespace ecgfast::pair_distance
