// CUDA kernel of moving_median; see contract.h.
#include "core/beyond.h"
#include "core/cuda.cuh"
#include "moving_median/contract.h"
#include "moving_median/order.h"

namespace ecgfast::moving_median::cuda {
namespace {

constexpr int kThreads = 256;
static_assert(kMostHeld / 32 + 1 <= kThreads);  // a thread scans one word

template <typename A>
using KeyOf = decltype(bits_of(A{}));

__device__ int zeros_in(unsigned word, int bits) {  // of its lowest ones
  return bits - count_bits(word & ((1u << bits) - 1u));
}

// A wavelet matrix: level by level, from the highest bit on, the keys are parted by that bit, those
// with a zero first, and both parts keep their order. It keeps the bits as they were before each
// parting, and how many zeros stand before each word of them.
struct Level {
  Shared<const unsigned> bits;
  Shared<const unsigned short> zeros;

  __device__ int zeros_before(int i) const {
    return zeros[i / 32] + zeros_in(bits[i / 32], i % 32);
  }
};

template <typename A>
struct Layout {  // of shared memory, in bytes
  int words, keys, bits, zeros, total;
};

template <typename A>
ECGFAST_HD Layout<A> layout(std::int64_t held) {
  constexpr int kLevels = 8 * sizeof(A);
  Layout<A> at = {};
  at.words = static_cast<int>(held / 32 + 1);
  at.keys = 32 * at.words * static_cast<int>(sizeof(A));  // two lists of keys come first
  at.bits = 2 * at.keys;
  at.zeros = at.bits + kLevels * at.words * 4;
  at.total = at.zeros + (kLevels * at.words + 1) / 2 * 4;
  return at;
}

// How many zeros stand before each thread's word, and in all words.
__device__ int zeros_before_words(int own, int* all) {
  ECGFAST_SHARED(int, warp_zeros, kThreads / 32);
  int sum = own;
  for (int step = 1; step < 32; step *= 2) {
    const int before = shuffle_up(sum, step);
    if (lane_index() >= step) sum += before;
  }
  if (lane_index() == 31) warp_zeros[warp_index()] = sum;
  sync_block();
  int before = sum - own;
  *all = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    if (warp < warp_index()) before += warp_zeros[warp];
    *all += warp_zeros[warp];
  }
  return before;
}

// One block a tile of a row. Grid: rows * tiles, tiles of a row together. Reads the samples of its
// windows, writes its outputs and one count.
template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Median job) {
  using A = acc_t<T>;
  using Bits = KeyOf<A>;
  constexpr int kLevels = 8 * sizeof(A);
  const std::int64_t tiles = tiles_of(job);
  const std::int64_t r = block_index() / tiles;
  const std::int64_t tile = block_index() % tiles;
  const std::int64_t samples = job.x.size[2];
  const std::int64_t begin = tile * job.tile;
  const std::int64_t first = begin - job.window / 2;
  const int window = static_cast<int>(job.window);
  const int outputs = static_cast<int>(tile_end(job, begin) - begin);
  const int count = outputs + window - 1;
  const Layout<A> at = layout<A>(count);
  Shared<Bits> keys = dynamic_shared<Bits>();
  Shared<Bits> parted = dynamic_shared<Bits>(at.keys);
  const Shared<unsigned> bits = dynamic_shared<unsigned>(at.bits);
  const Shared<unsigned short> zeros = dynamic_shared<unsigned short>(at.zeros);
  ECGFAST_SHARED(int, level_zeros, kLevels);

  const Global<const T> x = row<const T>(job.x, r);
  int gaps = 0;
  int missing = 0;
  for (int k = thread_index(); k < 32 * at.words; k += kThreads) {
    const std::int64_t i = first + k;
    if (k >= count) {  // behind all samples, at every level
      keys[k] = ~Bits(0);
      continue;
    }
    const std::int64_t from = sample_at(job.beyond, i, samples);
    const A value = from < 0 ? A(0) : filled_at<A>(x, from, samples, job.on_gap);
    keys[k] = ordered(bits_of(value));
    if (value != value) ++missing;
    if (i >= begin && i < begin + outputs && is_gap(static_cast<A>(x[i]))) ++gaps;
  }
  gaps = block_sum<kThreads>(gaps);
  missing = block_sum<kThreads>(missing);
  if (thread_index() == 0) global<std::int32_t>(job.gaps)[r * tiles + tile] = gaps;

  for (int level = 0; level < kLevels; ++level) {
    const int shift = kLevels - 1 - level;
    const int row_of = level * at.words;
    for (int word = warp_index(); word < at.words; word += kThreads / 32) {
      const unsigned votes = ballot((keys[32 * word + lane_index()] >> shift & 1) != 0);
      if (lane_index() == 0) bits[row_of + word] = votes;
    }
    sync_block();
    const int own = thread_index();
    int all = 0;
    const int before =
        zeros_before_words(own < at.words ? 32 - count_bits(bits[row_of + own]) : 0, &all);
    if (own < at.words) zeros[row_of + own] = static_cast<unsigned short>(before);
    if (own == 0) level_zeros[level] = all;
    sync_block();
    for (int k = thread_index(); k < 32 * at.words; k += kThreads) {
      const unsigned word = bits[row_of + k / 32];
      const int zeros_there = zeros[row_of + k / 32] + zeros_in(word, k % 32);
      const bool one = (word >> (k % 32) & 1) != 0;
      parted[one ? all + k - zeros_there : zeros_there] = keys[k];
    }
    sync_block();
    const Shared<Bits> former = keys;
    keys = parted;
    parted = former;
  }

  const Global<T> y = row<T>(job.y, r) + begin;
  for (int j = thread_index(); j < outputs; j += kThreads) {
    int low = j;
    int high = j + window;
    int rank = window / 2;
    Bits key = 0;
    for (int level = 0; level < kLevels; ++level) {
      const Level here = {bits + level * at.words, zeros + level * at.words};
      const int low_zeros = here.zeros_before(low);
      const int high_zeros = here.zeros_before(high);
      const bool one = rank >= high_zeros - low_zeros;
      key = key << 1 | (one ? 1u : 0u);
      if (one) {
        rank -= high_zeros - low_zeros;
        low += level_zeros[level] - low_zeros;
        high += level_zeros[level] - high_zeros;
      } else {
        low = low_zeros;
        high = high_zeros;
      }
    }
    y[j] = static_cast<T>(from_bits(unordered(key)));
    if (missing == 0) continue;
    for (int k = 0; k < window; ++k) {
      const std::int64_t from = sample_at(job.beyond, first + j + k, samples);
      if (from < 0) continue;
      const A value = filled_at<A>(x, from, samples, job.on_gap);
      if (value != value) y[j] = static_cast<T>(value);
    }
  }
}

}  // namespace

void forward(const Median& job, std::uint64_t stream) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto blocks = static_cast<unsigned>(job.x.size[0] * job.x.size[1] * tiles_of(job));
    const std::int64_t tile = job.tile < job.y.size[2] ? job.tile : job.y.size[2];
    const int bytes = layout<acc_t<T>>(tile + job.window - 1).total;
    launch<forward_kernel<T>>({blocks}, kThreads, static_cast<std::size_t>(bytes), stream, job);
  });
}

}  // namespace ecgfast::moving_median::cuda
