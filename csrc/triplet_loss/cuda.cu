// CUDA kernels of triplet_loss; see contract.h.
#include "core/cuda.cuh"
#include "core/search.h"
#include "triplet_loss/contract.h"

namespace ecgfast::triplet_loss::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kFinishThreads = 1024;

struct Triplet {
  std::int64_t anchor, positive, negative;
};

template <typename Job>
__device__ Triplet triplet(const Job& job, std::int64_t k) {
  return {record<const std::int64_t>(job.anchors, k)[0],
          record<const std::int64_t>(job.positives, k)[0],
          record<const std::int64_t>(job.negatives, k)[0]};
}

__device__ bool is_valid(const Forward& job, std::int64_t k) {
  return job.valid.data == nullptr || record<const std::uint8_t>(job.valid, k)[0] != 0;
}

__device__ bool inside(const Triplet& t, std::int64_t rows) {
  return t.anchor >= 0 && t.anchor < rows && t.positive >= 0 && t.positive < rows &&
         t.negative >= 0 && t.negative < rows;
}

// One warp a triplet. Grid: K / 4. Reads three rows of x, writes one hinge and three owners.
template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward job) {
  using A = acc_t<T>;
  const std::int64_t count = job.hinge.size[0];
  const std::int64_t rows = job.x.size[0];
  const std::int64_t k = static_cast<std::int64_t>(block_index()) * kWarps + warp_index();
  if (k >= count) return;  // the whole warp
  const Triplet t = triplet(job, k);
  const bool valid = is_valid(job, k);
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

// One block a row of x. Grid: N. Reads the row's slots, their triplets and two rows of x for each,
// writes a row of dx. The warps share the slots out among them; their sums meet in their order.
template <typename T>
__global__ void __launch_bounds__(kThreads) backward_kernel(Backward job) {
  using A = acc_t<T>;
  constexpr int kColumns = kThreads;  // of a tile; a lane has every 32nd, then a thread has one
  ECGFAST_SHARED(A, sums, kWarps * kColumns);
  const std::int64_t r = block_index();
  const std::int64_t rows = job.x.size[0];
  const std::int64_t length = job.x.size[1];
  const std::int64_t count = job.anchors.size[0];
  const Global<const std::int32_t> owners = global<const std::int32_t>(job.owners);
  const Global<const std::int64_t> slots = global<const std::int64_t>(job.slots);
  const std::int64_t begin = first_not_below(owners, 3 * count, r);
  const std::int64_t end = begin + first_not_below(owners + begin, 3 * count - begin, r + 1);
  const A twice = 2 * global<const A>(job.share)[0];
  const Global<T> dx = record<T>(job.grad_x, r);

  for (std::int64_t tile = 0; tile < length; tile += kColumns) {
    A sum[kColumns / 32] = {};
    for (std::int64_t s = begin + warp_index(); s < end; s += kWarps) {
      const std::int64_t role = slots[s] / count;
      const std::int64_t k = slots[s] - role * count;
      if (k < 0 || k >= count) continue;
      const Triplet t = triplet(job, k);
      if (!inside(t, rows)) continue;
      // What the row pulls is where it pulls from: n - p for an anchor, p - a, a - n.
      const Global<const T> plus = record<const T>(job.x, role == 0   ? t.negative
                                                          : role == 1 ? t.positive
                                                                      : t.anchor);
      const Global<const T> minus = record<const T>(job.x, role == 0   ? t.positive
                                                           : role == 1 ? t.anchor
                                                                       : t.negative);
      const A weight = twice * record<const A>(job.grad, k)[0];
      for (int i = 0; i < kColumns / 32; ++i) {
        const std::int64_t d = tile + 32 * i + lane_index();
        if (d < length) sum[i] += weight * (static_cast<A>(plus[d]) - static_cast<A>(minus[d]));
      }
    }
    for (int i = 0; i < kColumns / 32; ++i) {
      sums[warp_index() * kColumns + 32 * i + lane_index()] = sum[i];
    }
    sync_block();
    A total = 0;
    for (int warp = 0; warp < kWarps; ++warp) total += sums[warp * kColumns + thread_index()];
    if (tile + thread_index() < length) dx[tile + thread_index()] = static_cast<T>(total);
    sync_block();  // the next tile writes there
  }
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
    launch<backward_kernel<T>>({blocks(job.x.size[0])}, kThreads, 0, stream, job);
  });
}

}  // namespace ecgfast::triplet_loss::cuda
