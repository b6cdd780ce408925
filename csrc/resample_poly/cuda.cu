// CUDA kernel of resample_poly; see contract.h.
#include "core/gaps.cuh"
#include "core/polyphase.cuh"
#include "resample_poly/contract.h"

namespace ecgfast::resample_poly::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostTable = 48 * 1024;  // bytes of taps that go to shared memory

// The taps as they lie in memory, unless they are too many for shared memory: then 0.
template <typename A>
ECGFAST_HD std::int64_t shared_taps(const Polyphase& filter) {
  const std::int64_t size = (filter.up - 1) * filter.taps.stride[0] + filter.taps.size[1];
  return size * static_cast<std::int64_t>(sizeof(A)) <= kMostTable ? size : 0;
}

// The first or the last value of a row, filled if it is a gap.
template <typename A, typename T>
__device__ A end_of(const Resample& job, const Global<const T>& x, std::int64_t at, int inwards) {
  const A value = static_cast<A>(x[at]);
  if (job.on_gap == OnGap::keep || !is_gap(value)) return value;
  if (job.on_gap == OnGap::zero) return 0;
  for (std::int64_t i = at; i >= 0 && i < job.x.size[2]; i += inwards) {
    if (!is_gap(static_cast<A>(x[i]))) return static_cast<A>(x[i]);
  }
  return 0;
}

// The inputs outside of the signal that a tile holds.
template <typename A, typename T>
__device__ void extend(const Resample& job, const Held& held, const Global<const T>& x,
                       const Shared<A>& inputs) {
  const std::int64_t samples = job.x.size[2];
  const bool outside = held.begin < 0 || held.end > samples;
  if (!outside) return;
  A left = 0;
  A right = 0;
  if (job.outside != Outside::zeros) {
    left = end_of<A, T>(job, x, 0, 1);
    right = end_of<A, T>(job, x, samples - 1, -1);
  }
  const A slope =
      job.outside == Outside::line ? (right - left) / static_cast<A>(samples - 1) : A(0);
  for (std::int64_t i = held.begin + thread_index(); i < held.end; i += kThreads) {
    if (i < 0) inputs[i - held.begin] = left + static_cast<A>(i) * slope;
    if (i >= samples) inputs[i - held.begin] = right + static_cast<A>(i - (samples - 1)) * slope;
  }
}

// One block a tile of a row. Grid: rows * tiles, tiles of a row together. Reads the inputs of its
// outputs, those at its borders a second time, and all taps; writes its outputs and one count.
template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Resample job) {
  using A = acc_t<T>;
  const std::int64_t tiles = tiles_of(job);
  const std::int64_t r = block_index() / tiles;
  const std::int64_t tile = block_index() % tiles;
  const std::int64_t samples = job.x.size[2];
  const std::int64_t begin = tile * job.tile;
  const std::int64_t end = tile_end(job, begin);
  const Held held = held_by(job, begin, end);
  const Global<const T> x = row<const T>(job.x, r);
  const Shared<A> inputs = dynamic_shared<A>();

  const std::int64_t to = min(held.end, samples);
  int own = 0;
  int all = 0;
  for (std::int64_t i = max(held.begin, std::int64_t{0}) + thread_index(); i < to; i += kThreads) {
    const A value = static_cast<A>(x[i]);
    inputs[i - held.begin] = value;
    if (is_gap(value)) {
      ++all;
      if (i >= held.own && i < held.own_end) ++own;
    }
  }
  extend<A, T>(job, held, x, inputs);

  const Global<const A> taps = global<const A>(job.filter.taps);
  const int size = static_cast<int>(shared_taps<A>(job.filter));
  const Shared<A> table = dynamic_shared<A>((held.end - held.begin) * sizeof(A));
  for (int i = thread_index(); i < size; i += kThreads) table[i] = taps[i];

  own = block_sum<kThreads>(own);
  all = block_sum<kThreads>(all);  // its barrier also lets all see inputs and table
  if (thread_index() == 0) global<std::int32_t>(job.gaps)[r * tiles + tile] = own;
  if (all > 0 && job.on_gap != OnGap::keep) {
    const std::int64_t from = max(held.begin, std::int64_t{0});
    fill_gaps<kThreads, A, T>(x, samples, job.on_gap, inputs + (from - held.begin), from, to);
  }

  const Stretch stretch = stretch_from(job.filter, begin);
  const auto first = inputs + (first_input(job.filter, begin) - held.begin);
  const int step = static_cast<int>(job.filter.taps.stride[0]);
  const int per = static_cast<int>(job.filter.taps.size[1]);
  const Global<T> y = row<T>(job.y, r) + begin;
  const int outputs = static_cast<int>(end - begin);
  for (int j = thread_index(); j < outputs; j += kThreads) {
    const A sum = size > 0 ? resample_one<A>(stretch, table, step, per, first, j)
                           : resample_one<A>(stretch, taps, step, per, first, j);
    y[j] = static_cast<T>(sum);
  }
}

}  // namespace

void forward(const Resample& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = acc_t<T>;
    const auto blocks = static_cast<unsigned>(job.x.size[0] * job.x.size[1] * tiles_of(job));
    const std::int64_t held = most_held(job) + shared_taps<A>(job.filter);
    launch<forward_kernel<T>>({blocks}, kThreads, static_cast<std::size_t>(held) * sizeof(A),
                              stream, job);
  });
}

}  // namespace ecgfast::resample_poly::cuda
