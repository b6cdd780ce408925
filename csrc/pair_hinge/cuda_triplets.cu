// CUDA kernels of pair_hinge on all triplets; see contract.h.
#include "core/search.h"
#include "pair_hinge/row.cuh"

namespace ecgfast::pair_hinge::cuda {
namespace {

constexpr int kShared = 2048;  // positives up to this many are sorted in shared memory
constexpr int kColumns = 128;  // of a block of the kernel on columns
constexpr int kBlocks =
    3;  // on a multiprocessor: left to itself, ptxas spares registers and spills

// Ascending, in place; all threads of the block, and what is sorted must be visible to them.
// Bitonic with all comparisons one way, so that `count` needs not be a power of two: what is past
// the end would be infinite and never move.
template <typename Values>
__device__ void sort_values(Values values, std::int64_t count) {
  for (std::int64_t run = 2; run / 2 < count; run *= 2) {
    for (std::int64_t step = run / 2; step > 0; step /= 2) {
#pragma unroll 1
      for (std::int64_t k = thread_index(); 2 * k < count + 2 * step; k += kThreads) {
        const std::int64_t within = k & (step - 1);  // step is a power of two
        const std::int64_t low = 2 * k - within;
        // the first step of a run compares mirrored places
        const std::int64_t high = step == run / 2 ? low + run - 1 - 2 * within : low + step;
        if (high >= count) continue;
        const auto a = +values[low];
        const auto b = +values[high];
        if (a > b) {
          values[low] = b;
          values[high] = a;
        }
      }
      sync_block();
    }
  }
}

// values[k] becomes the sum of values[0] to values[k]; all threads of the block.
__device__ void cumulate(Global<std::int32_t> values, std::int64_t count) {
  ECGFAST_SHARED(int, sums, kWarps);
  int carry = 0;
  for (std::int64_t begin = 0; begin < count; begin += kThreads) {
    const std::int64_t k = begin + thread_index();
    int sum = k < count ? +values[k] : 0;
    for (int step = 1; step < 32; step *= 2) {
      const int other = shuffle_up(sum, step);
      if (lane_index() >= step) sum += other;
    }
    if (lane_index() == 31) sums[warp_index()] = sum;
    sync_block();
    int before = carry;
    for (int warp = 0; warp < kWarps; ++warp) {
      if (warp < warp_index()) before += sums[warp];
      carry += sums[warp];
    }
    if (k < count) values[k] = sum + before;
    sync_block();
  }
}

// In the strip the distance of a near pair bears a minus, so that nobody has to look twice; those
// of cosine, which knows no near pairs, may be under 0 by rounding.
template <typename A>
__device__ A distance_of(const Strip& s, A value) {
  return s.metric == Metric::cosine ? value : fabs(value);
}

// What is known of a row. The arrays are scratch.
template <typename A>
struct Ranked {
  Global<A> sorted;            // ascending distances of the positives
  Global<std::int32_t> until;  // for each of them: active negatives
  std::int64_t positives, negatives;
  double far;           // sum of n_q t_q
  std::int64_t active;  // sum of n_q
  bool nan;
};

// Overwrites the row of products by distances, and counts by ranks. All threads of the block.
template <typename A>
__device__ Ranked<A> rank_row(const Strip& s, const Row<A>& row, const View& values,
                              const View& numbers, Global<A> d, A margin) {
  ECGFAST_SHARED(int, found, 1);
  ECGFAST_SHARED(A, few, kShared);
  Ranked<A> ranked{};
  ranked.sorted = updated_row<A>(values, row.r);
  ranked.until = updated_row<std::int32_t>(numbers, row.r);
  if (thread_index() == 0) found[0] = 0;
  sync_block();
  int negatives = 0;
  int nans = 0;
#pragma unroll 1
  for (std::int64_t j = thread_index(); j < row.width; j += kThreads) {
    std::int32_t kind = kind_of(s, row, j);
    const A apart = measure(s, row, j, static_cast<A>(d[j]), kind);
    d[j] = close_pair(kind) ? -apart : apart;
    negatives += negative(kind);
    nans += (kind & 3) != kNeither && apart != apart;
    // In any order, as they are sorted next; a NaN, which has no place in one, is not looked at.
    if (positive(kind)) ranked.sorted[atomic_add(found, 1)] = apart == apart ? apart : A(0);
  }
  ranked.negatives = block_sum<kThreads>(negatives);
  nans = block_sum<kThreads>(nans);
  ranked.positives = found[0];
  ranked.nan = nans > 0 && ranked.positives > 0 && ranked.negatives > 0;

  if (ranked.positives <= kShared) {
#pragma unroll 1
    for (std::int64_t k = thread_index(); k < ranked.positives; k += kThreads) {
      few[k] = ranked.sorted[k];
    }
    sync_block();
    sort_values(few, ranked.positives);
#pragma unroll 1
    for (std::int64_t k = thread_index(); k < ranked.positives; k += kThreads) {
      ranked.sorted[k] = few[k];
    }
  } else {
    sort_values(ranked.sorted, ranked.positives);
  }
#pragma unroll 1
  for (std::int64_t k = thread_index(); k <= ranked.positives; k += kThreads) ranked.until[k] = 0;
  sync_block();
#pragma unroll 1
  for (std::int64_t j = thread_index(); j < row.width; j += kThreads) {
    if (!negative(kind_of(s, row, j))) continue;
    const A t = distance_of(s, static_cast<A>(d[j])) - margin;
    const std::int64_t rank = at_most(ranked.sorted, ranked.positives, t);
    atomic_add(ranked.until + rank, 1);
    const std::int64_t times = ranked.positives - rank;
    ranked.active += times;
    if (times > 0) ranked.far += static_cast<double>(times) * static_cast<double>(t);
  }
  sync_block();
  cumulate(ranked.until, ranked.positives);
  ranked.active = block_sum<kThreads>(ranked.active);
  ranked.far = block_sum<kThreads>(ranked.far);
  return ranked;
}

// One block a row. Grid: rows. Reads the row of products and overwrites it by distances; writes a
// sum and two counts.
template <typename A>
__global__ void __launch_bounds__(kThreads, kBlocks) sums_kernel(TripletSums job) {
  const Row<A> row = row_of<A>(job.strip, block_index());
  const Ranked<A> ranked =
      rank_row(job.strip, row, job.values, job.numbers, updated_row<A>(job.strip.products, row.r),
               static_cast<A>(job.margin));
  double near = 0;
  if (ranked.active > 0) {
#pragma unroll 1
    for (std::int64_t k = thread_index(); k < ranked.positives; k += kThreads) {
      const int times = ranked.until[k];
      // No positive that is never active takes part, be it infinite.
      if (times > 0) near += times * static_cast<double>(ranked.sorted[k]);
    }
  }
  near = block_sum<kThreads>(near);
  if (thread_index() != 0) return;
  const double sum = ranked.nan ? nan("") : near - ranked.far;
  global<A>(job.sums)[row.r] = static_cast<A>(sum);
  record<std::int64_t>(job.counts, 0)[row.r] = ranked.nan ? 0 : ranked.active;
  record<std::int64_t>(job.counts, 1)[row.r] = ranked.positives * ranked.negatives;
}

// One block a row. Grid: rows. Reads the row of products and overwrites it by coefficients; adds to
// the row of dx.
template <typename A>
__global__ void __launch_bounds__(kThreads, kBlocks) coefficients_kernel(TripletCoefficients job) {
  const Strip& s = job.strip;
  const Row<A> row = row_of<A>(s, block_index());
  const Global<A> d = updated_row<A>(s.products, row.r);
  const Global<A> dx = updated_row<A>(job.grad_x, row.r);
  const A g = global<const A>(job.grads)[row.r];
  const A margin = static_cast<A>(job.margin);
  const Ranked<A> ranked = rank_row(s, row, job.values, job.numbers, d, margin);
  const bool any = ranked.positives > 0 && ranked.negatives > 0;
  A total = 0;
  for (std::int64_t begin = 0; begin < row.width; begin += kThreads) {
    const std::int64_t j = begin + thread_index();
    A near = 0;
    if (j < row.width) {
      const A value = d[j];
      const A apart = distance_of(s, value);
      const std::int32_t kind = kind_of(s, row, j);
      A grad = 0;
      if (any && kind != kNeither) {
        if (ranked.nan) {
          grad = static_cast<A>(nan(""));
        } else {
          const int times =
              positive(kind)
                  ? +ranked.until[first_not_below(ranked.sorted, ranked.positives, apart)]
                  : static_cast<int>(at_most(ranked.sorted, ranked.positives, apart - margin) -
                                     ranked.positives);
          grad = times == 0 ? A(0) : static_cast<A>(times) * g;
        }
      }
      const A c = kind == kNeither ? A(0) : coefficient(s.metric, grad, apart);
      const bool close = s.metric != Metric::cosine && signbit(value);  // -0 too
      near = close ? c : A(0);
      total += close ? A(0) : c;
      d[j] = close ? c : -c;
    }
    if (s.metric != Metric::cosine) add_near(s, row, begin, near, dx);
  }
  if (s.metric != Metric::cosine) add_scaled(s.x, row.r, block_sum<kThreads>(total), dx);
}

// One block 128 columns, a thread a column. Grid: M / 128. Reads the strip, takes the coefficients
// of near pairs out of it, and adds to rows of dy.
template <typename A>
__global__ void __launch_bounds__(kColumns) columns_kernel(ColumnCoefficients job) {
  ECGFAST_SHARED(A, totals, kColumns);
  const Strip& s = job.strip;
  const std::int64_t width = s.products.size[1];
  const std::int64_t length = s.x.size[1];
  const std::int64_t begin = static_cast<std::int64_t>(block_index()) * kColumns;
  const std::int64_t j = begin + thread_index();
  A total = 0;
  if (j < width) {
    const Global<A> kept = update<A>(s.products);
    const std::int32_t label = global<const std::int32_t>(s.column_labels)[j];
    for (std::int64_t r = 0; r < s.products.size[0]; ++r) {
      const A value = kept[r * width + j];
      const bool same = global<const std::int32_t>(s.row_labels)[r] == label;
      if (!marked(value, static_cast<A>(global<const A>(job.grads)[r]), same)) {
        total -= value;
        continue;
      }
      const Global<const A> x = record<const A>(s.x, r);
      const Global<const A> y = record<const A>(s.y, j);
      const Global<A> dy = updated_row<A>(job.grad_y, j);
#pragma unroll 1
      for (std::int64_t t = 0; t < length; ++t) dy[t] += value * (y[t] - x[t]);
      kept[r * width + j] = 0;
    }
  }
  totals[thread_index()] = total;
  sync_block();
  for (int k = 0; k < kColumns && begin + k < width; ++k) {
    const Global<const A> y = record<const A>(s.y, begin + k);
    const Global<A> dy = updated_row<A>(job.grad_y, begin + k);
    for (std::int64_t t = thread_index(); t < length; t += kColumns) dy[t] += totals[k] * y[t];
  }
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>(count); }

}  // namespace

void triplet_sums(const TripletSums& job, std::uint64_t stream) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    using A = acc_t<decltype(zero)>;
    launch<sums_kernel<A>>({blocks(job.strip.products.size[0])}, kThreads, 0, stream, job);
  });
}

void triplet_coefficients(const TripletCoefficients& job, std::uint64_t stream) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    using A = acc_t<decltype(zero)>;
    launch<coefficients_kernel<A>>({blocks(job.strip.products.size[0])}, kThreads, 0, stream, job);
  });
}

void column_coefficients(const ColumnCoefficients& job, std::uint64_t stream) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    using A = acc_t<decltype(zero)>;
    const std::int64_t columns = job.strip.products.size[1];
    launch<columns_kernel<A>>({blocks((columns + kColumns - 1) / kColumns)}, kColumns, 0, stream,
                              job);
  });
}

}  // namespace ecgfast::pair_hinge::cuda
