// CUDA kernel of moving_average; see contract.h.
#include "core/beyond.h"
#include "core/cuda.cuh"
#include "moving_average/contract.h"

namespace ecgfast::moving_average::cuda {
namespace {

constexpr int kThreads = 256;

// sums[i] = the sum of x from the beginning of i's stretch of `window` elements to i, or from i to
// its end. Each thread has a part of odd length, which keeps 32 of them in 32 banks.
template <bool kToEnd, typename A>
__device__ void sum_stretches(const Shared<A>& x, const Shared<A>& sums, int count, int window) {
  const int part = (count + kThreads - 1) / kThreads | 1;
  const int begin = min(count, thread_index() * part);
  const int end = min(count, begin + part);
  const auto place = [&](int step) { return kToEnd ? count - 1 - step : step; };
  const auto begins = [&](int i) { return (kToEnd ? i + 1 : i) % window == 0; };

  A sum = 0;  // of the part, from the last beginning in it on
  int fresh = 0;
  for (int step = begin; step < end; ++step) {
    const int i = place(step);
    fresh |= begins(i);
    sum = begins(i) ? x[i] : sum + x[i];
  }
  for (int step = 1; step < 32; step *= 2) {  // parts of the warp up to this one
    const A sum_before = shuffle_up(sum, step);
    const int fresh_before = shuffle_up(fresh, step);
    if (lane_index() < step) continue;
    if (!fresh) sum += sum_before;
    fresh |= fresh_before;
  }
  ECGFAST_SHARED(A, warp_sum_of, kThreads / 32);
  ECGFAST_SHARED(int, warp_fresh, kThreads / 32);
  sync_block();  // a former call may still be reading
  if (lane_index() == 31) {
    warp_sum_of[warp_index()] = sum;
    warp_fresh[warp_index()] = fresh;
  }
  sync_block();
  A running = shuffle_up(sum, 1);
  int known = shuffle_up(fresh, 1);
  if (lane_index() == 0) {
    running = 0;
    known = 0;
  }
  for (int warp = warp_index() - 1; warp >= 0 && !known; --warp) {
    running += warp_sum_of[warp];
    known = warp_fresh[warp];
  }
  for (int step = begin; step < end; ++step) {
    const int i = place(step);
    running = begins(i) ? x[i] : running + x[i];
    sums[i] = running;
  }
}

// One block a tile of a row. Grid: rows * tiles, tiles of a row together. Reads the samples of its
// windows, writes its outputs and one count.
template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Average job) {
  using A = acc_t<T>;
  const std::int64_t tiles = tiles_of(job);
  const std::int64_t r = block_index() / tiles;
  const std::int64_t tile = block_index() % tiles;
  const std::int64_t samples = job.x.size[2];
  const Held held = held_by(job, tile);
  const int window = static_cast<int>(job.window);
  const int count = static_cast<int>(held.end - held.begin);
  const Global<const T> x = row<const T>(job.x, r);
  const Shared<A> values = dynamic_shared<A>();
  const Shared<A> to_end = dynamic_shared<A>(count * static_cast<std::int64_t>(sizeof(A)));

  int gaps = 0;
  for (int k = thread_index(); k < count; k += kThreads) {
    const std::int64_t i = held.begin + k;
    const std::int64_t at = sample_at(job.beyond, i, samples);
    values[k] = at < 0 ? A(0) : filled_at<A>(x, at, samples, job.on_gap);
    if (i >= held.own && i < held.own_end && is_gap(static_cast<A>(x[i]))) ++gaps;
  }
  gaps = block_sum<kThreads>(gaps);  // its barrier also lets all see the values
  if (thread_index() == 0) global<std::int32_t>(job.gaps)[r * tiles + tile] = gaps;

  sum_stretches<true>(values, to_end, count, window);
  sync_block();
  sum_stretches<false>(values, values, count, window);
  sync_block();
  const Global<T> y = row<T>(job.y, r) + tile * job.tile;
  const int outputs = static_cast<int>(held.end_output - tile * job.tile);
  const A share = A(1) / static_cast<A>(window);
  for (int j = thread_index(); j < outputs; j += kThreads) {
    A sum = values[j + window - 1];
    if (j % window != 0) sum += to_end[j];
    y[j] = static_cast<T>(sum * share);
  }
}

}  // namespace

void forward(const Average& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto blocks = static_cast<unsigned>(job.x.size[0] * job.x.size[1] * tiles_of(job));
    const std::int64_t tile = job.tile < job.y.size[2] ? job.tile : job.y.size[2];
    const std::int64_t held = 2 * (tile + job.window - 1);
    launch<forward_kernel<T>>({blocks}, kThreads, static_cast<std::size_t>(held) * sizeof(acc_t<T>),
                              stream, job);
  });
}

}  // namespace ecgfast::moving_average::cuda
