// CUDA kernels of min-max normalisation; see contract.h.
#include "core/cuda.cuh"
#include "lead_norm/group.h"

namespace ecgfast::lead_norm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRecordThreads = 1024;

// A sample and where it stands in its group.
template <typename A>
struct Found {
  A value;
  std::int64_t index;
};

// Whether `a` goes before `b`: a NaN before all, then the least, then the first.
template <typename A>
__device__ static inline bool before(const Found<A>& a, const Found<A>& b) {
  const bool a_nan = a.value != a.value;
  const bool b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan;
  if (!a_nan && a.value != b.value) return a.value < b.value;
  return a.index < b.index;
}

// The first of all that the threads of a block have found, returned to every one of them.
template <int kBlock, typename A>
__device__ static inline Found<A> block_first(Found<A> found) {
  ECGFAST_SHARED(A, values, kBlock / 32);
  ECGFAST_SHARED(std::int64_t, indices, kBlock / 32);
  for (int step = 16; step > 0; step /= 2) {
    const Found<A> other{shuffle_xor(found.value, step), shuffle_xor(found.index, step)};
    if (before(other, found)) found = other;
  }
  sync_block();  // a former call may still be reading
  if (lane_index() == 0) {
    values[warp_index()] = found.value;
    indices[warp_index()] = found.index;
  }
  sync_block();
  found = {values[0], indices[0]};
  for (int warp = 1; warp < kBlock / 32; ++warp) {
    const Found<A> other{values[warp], indices[warp]};
    if (before(other, found)) found = other;
  }
  return found;
}

// One block a group. Grid: groups. Reads x (twice), writes y and two indices.
template <typename T, int kBlock>
__global__ void __launch_bounds__(kBlock, 1) forward_kernel(MinMax job) {
  using A = acc_t<T>;
  const Group group = group_at(job.x, job.extremes, block_index());
  const std::int64_t length = job.x.size[2];

  // A thread without samples holds the first one, which every group has.
  const A first = static_cast<A>(row<const T>(job.x, group.first)[0]);
  Found<A> least{first, 0};
  Found<A> largest{-first, 0};  // the least of -x
  for (std::int64_t r = 0; r < group.count; ++r) {
    const Global<const T> x = row<const T>(job.x, group.first + r);
    for (std::int64_t t = thread_index(); t < length; t += kBlock) {
      const A value = static_cast<A>(x[t]);
      const Found<A> low{value, r * length + t};
      const Found<A> high{-value, r * length + t};
      if (before(low, least)) least = low;
      if (before(high, largest)) largest = high;
    }
  }
  least = block_first<kBlock>(least);
  largest = block_first<kBlock>(largest);

  const auto scale =
      scale_of(least.value, -largest.value, static_cast<A>(job.low), static_cast<A>(job.high));
  for (std::int64_t r = group.first; r < group.first + group.count; ++r) {
    const Global<const T> x = row<const T>(job.x, r);
    const Global<T> y = row<T>(job.y, r);
    for (std::int64_t t = thread_index(); t < length; t += kBlock) {
      y[t] = static_cast<T>(scale.value(scale.share(static_cast<A>(x[t]))));
    }
  }
  if (thread_index() != 0) return;
  const Global<std::int64_t> at =
      global<std::int64_t>(job.extremes) + 2 * static_cast<std::int64_t>(block_index());
  at[0] = least.index;
  at[1] = largest.index;
}

// One block a group. Grid: groups. Reads x and g (twice) and two indices, writes dx.
template <typename T, int kBlock>
__global__ void __launch_bounds__(kBlock, 1) backward_kernel(MinMaxBackward job) {
  using A = acc_t<T>;
  const Group group = group_at(job.x, job.extremes, block_index());
  const std::int64_t length = job.x.size[2];
  const Global<const std::int64_t> at =
      global<const std::int64_t>(job.extremes) + 2 * static_cast<std::int64_t>(block_index());
  const std::int64_t low_at = safe_index(at[0], group.count * length);
  const std::int64_t high_at = safe_index(at[1], group.count * length);
  const Global<const T> low_row = row<const T>(job.x, group.first + low_at / length);
  const Global<const T> high_row = row<const T>(job.x, group.first + high_at / length);
  const auto scale =
      scale_of(static_cast<A>(low_row[low_at % length]), static_cast<A>(high_row[high_at % length]),
               static_cast<A>(job.low), static_cast<A>(job.high));
  const A slope = low_at == high_at ? scale.range * A(0) : (scale.high - scale.low) / scale.range;

  A sum_g = 0;
  A sum_gu = 0;
  for (std::int64_t r = group.first; r < group.first + group.count; ++r) {
    const Global<const T> x = row<const T>(job.x, r);
    const Global<const T> g = row<const T>(job.grad_y, r);
    for (std::int64_t t = thread_index(); t < length; t += kBlock) {
      sum_g += static_cast<A>(g[t]);
      sum_gu += static_cast<A>(g[t]) * scale.share(static_cast<A>(x[t]));
    }
  }
  sum_g = block_sum<kBlock>(sum_g);
  sum_gu = block_sum<kBlock>(sum_gu);

  for (std::int64_t r = 0; r < group.count; ++r) {
    const Global<const T> g = row<const T>(job.grad_y, group.first + r);
    const Global<T> dx = row<T>(job.grad_x, group.first + r);
    for (std::int64_t t = thread_index(); t < length; t += kBlock) {
      const std::int64_t index = r * length + t;
      A gradient = static_cast<A>(g[t]);
      if (index == low_at) gradient += sum_gu - sum_g;
      if (index == high_at) gradient -= sum_gu;
      dx[t] = static_cast<T>(slope * gradient);
    }
  }
}

unsigned blocks(const View& view) { return static_cast<unsigned>(view.size[0] * view.size[1]); }

// Whether a group is a row; then there are many of them and a block can be small.
bool by_row(const View& x, const View& statistics) { return x.size[1] == statistics.size[1]; }

}  // namespace

void min_max(const MinMax& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (by_row(job.x, job.extremes)) {
      launch<forward_kernel<T, kThreads>>({blocks(job.extremes)}, kThreads, 0, stream, job);
    } else {
      launch<forward_kernel<T, kRecordThreads>>({blocks(job.extremes)}, kRecordThreads, 0, stream,
                                                job);
    }
  });
}

void min_max_backward(const MinMaxBackward& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (by_row(job.x, job.extremes)) {
      launch<backward_kernel<T, kThreads>>({blocks(job.extremes)}, kThreads, 0, stream, job);
    } else {
      launch<backward_kernel<T, kRecordThreads>>({blocks(job.extremes)}, kRecordThreads, 0, stream,
                                                 job);
    }
  });
}

}  // namespace ecgfast::lead_norm::cuda
