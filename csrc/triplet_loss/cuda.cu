// CUDA kernels of triplet_loss; see contract.h.
#include "core/cuda.cuh"
#include "core/owned.cuh"
#include "triplet_loss/contract.h"
#include "triplet_loss/triplet.h"

namespace ecgfast::triplet_loss {

template <typename A>
__device__ static inline Part<A> of_lane(const Part<A>& part, int lane) {
  return {shuffle(part.plus, lane), shuffle(part.minus, lane), shuffle(part.weight, lane)};
}

namespace cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kColumns = kThreads;  // of a block of backward: four a lane, then one a thread
constexpr int kFinishThreads = 1024;

// One warp a triplet. Grid: K / 4. Reads three rows of x, writes one hinge and three owners.
template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward job) {
  using A = acc_t<T>;
  const std::int64_t count = job.hinge.size[0];
  const std::int64_t rows = job.x.size[0];
  const std::int64_t k = static_cast<std::int64_t>(block_index()) * kWarps + warp_index();
  if (k >= count) return;  // the whole warp
  const Triplet t = triplet_at(job, k);
  const bool valid = counts(job, k);
  const bool readable = valid && inside(t, rows);
  A h = valid && !readable ? static_cast<A>(nan("")) : A(0);
  if (readable) {
    const Global<const T> a = record<const T>(job.x, t.anchor);
    const Global<const T> p = record<const T>(job.x, t.positive);
    const Global<const T> n = record<const T>(job.x, t.negative);
    A to_positive = 0;
    A to_negative = 0;
    for (std::int64_t d = lane_index(); d < job.x.size[1]; d += 32) {
      const A anchor = static_cast<A>(a[d]);
      const A near = anchor - static_cast<A>(p[d]);
      const A far = anchor - static_cast<A>(n[d]);
      to_positive += near * near;
      to_negative += far * far;
    }
    h = warp_sum(to_positive) - warp_sum(to_negative) + static_cast<A>(job.margin);
    h = h <= 0 ? A(0) : h;  // a NaN stays
  }
  if (lane_index() != 0) return;
  const bool active = readable && h != 0;
  const std::int64_t nobody = rows + (!valid ? kInvalid : readable ? kInactive : kOutside);
  const Global<std::int32_t> owners = global<std::int32_t>(job.owners);
  global<A>(job.hinge)[k] = h;
  owners[k] = static_cast<std::int32_t>(active ? t.anchor : nobody);
  owners[count + k] = static_cast<std::int32_t>(active ? t.positive : nobody);
  owners[2 * count + k] = static_cast<std::int32_t>(active ? t.negative : nobody);
}

// One block. Grid: 1. Reads all hinges and their first owners, writes loss, share and outside.
template <typename A>
__global__ void __launch_bounds__(kFinishThreads) finish_kernel(Finish job) {
  const Global<const A> hinge = global<const A>(job.hinge);
  const Global<const std::int32_t> owners = global<const std::int32_t>(job.owners);
  double sum = 0;
  int valid = 0;
  int outside = 0;
  for (std::int64_t k = thread_index(); k < job.hinge.size[0]; k += kFinishThreads) {
    sum += static_cast<double>(hinge[k]);
    valid += owners[k] != job.rows + kInvalid;
    outside += owners[k] == job.rows + kOutside;
  }
  sum = block_sum<kFinishThreads>(sum);
  valid = block_sum<kFinishThreads>(valid);
  outside = block_sum<kFinishThreads>(outside);
  if (thread_index() != 0) return;
  const double share = job.mean ? 1.0 / (valid > 0 ? valid : 1) : 1.0;
  global<A>(job.loss)[0] = static_cast<A>(sum * share);
  global<A>(job.share)[0] = static_cast<A>(share);
  global<std::int64_t>(job.outside)[0] = outside;
}

// One block a row of x and 128 columns. Grid: N, D / 128. Reads the row's slots, their triplets and
// two rows of x for each, writes dx. Warps take every fourth slot; their sums meet in their order.
template <typename T>
__global__ void __launch_bounds__(kThreads, kOwnedBlocks<T>) backward_kernel(Backward job) {
  using A = acc_t<T>;
  ECGFAST_SHARED(A, sums, kWarps * kColumns);
  const std::int64_t r = block_index();
  const std::int64_t length = job.x.size[1];
  const std::int64_t column = static_cast<std::int64_t>(block_index_y()) * kColumns;
  const Global<const std::int64_t> slots = global<const std::int64_t>(job.slots);
  const A twice_share = 2 * global<const A>(job.share)[0];

  const Run run = run_of(global<const std::int32_t>(job.owners), job.owners.size[0], r);
  A sum[kColumns / 32] = {};
  each_part<Part<A>, kWarps>(
      run, [&](std::int64_t s) { return part_of(job, slots[s], twice_share); },
      [&](const Part<A>& part) {
        const Global<const T> plus = record<const T>(job.x, part.plus);
        const Global<const T> minus = record<const T>(job.x, part.minus);
        for (int i = 0; i < kColumns / 32; ++i) {
          const std::int64_t d = column + 32 * i + lane_index();
          if (d < length) {
            sum[i] += part.weight * (static_cast<A>(plus[d]) - static_cast<A>(minus[d]));
          }
        }
      });
  const A total = total_of_warps<kWarps>(sum, sums);
  if (column + thread_index() >= length) return;
  record<T>(job.grad_x, r)[column + thread_index()] = static_cast<T>(total);
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>(count); }

}  // namespace

void forward(const Forward& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t count = job.hinge.size[0];
    launch<forward_kernel<T>>({blocks((count + kWarps - 1) / kWarps)}, kThreads, 0, stream, job);
  });
}

void finish(const Finish& job, std::uint64_t stream) {
  dispatch_float(job.hinge.dtype, [&](auto zero) {
    using A = acc_t<decltype(zero)>;
    launch<finish_kernel<A>>({1}, kFinishThreads, 0, stream, job);
  });
}

void backward(const Backward& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Grid grid{blocks(job.x.size[0]), blocks((job.x.size[1] + kColumns - 1) / kColumns)};
    launch<backward_kernel<T>>(grid, kThreads, 0, stream, job);
  });
}

}  // namespace cuda
}  // namespace ecgfast::triplet_loss
