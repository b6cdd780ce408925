// CUDA kernels of pair_hinge on pairs; see contract.h.
#include "pair_hinge/row.cuh"

namespace ecgfast::pair_hinge::cuda {
namespace {

// One block a row. Grid: rows. Reads the row of products, writes two sums and four counts.
template <typename A>
__global__ void __launch_bounds__(kThreads) sums_kernel(PairSums job) {
  const Strip& s = job.strip;
  const Row<A> row = row_of<A>(s, block_index());
  const Global<const A> products = record<const A>(s.products, row.r);
  const A from = record<const A>(job.thresholds, 0)[row.r];
  const A upto = record<const A>(job.thresholds, 1)[row.r];
  A pull = 0;
  A push = 0;
  int pulling = 0;
  int pushing = 0;
  int positives = 0;
  int negatives = 0;
  for (std::int64_t j = thread_index(); j < row.width; j += kThreads) {
    std::int32_t kind = kind_of(s, row, j);
    if (kind == kNeither) continue;
    const A d = measure(s, row, j, products[j], kind);
    const A h = hinge(positive(kind) ? d - from : upto - d);
    if (positive(kind)) {
      pull += h;
      pulling += h > 0;
      ++positives;
    } else {
      push += h;
      pushing += h > 0;
      ++negatives;
    }
  }
  pull = block_sum<kThreads>(pull);
  push = block_sum<kThreads>(push);
  pulling = block_sum<kThreads>(pulling);
  pushing = block_sum<kThreads>(pushing);
  positives = block_sum<kThreads>(positives);
  negatives = block_sum<kThreads>(negatives);
  if (thread_index() != 0) return;
  record<A>(job.sums, 0)[row.r] = pull;
  record<A>(job.sums, 1)[row.r] = push;
  record<std::int64_t>(job.counts, 0)[row.r] = pulling;
  record<std::int64_t>(job.counts, 1)[row.r] = pushing;
  record<std::int64_t>(job.counts, 2)[row.r] = positives;
  record<std::int64_t>(job.counts, 3)[row.r] = negatives;
}

// dLoss/dd that the hinges of element n of one side's thresholds and gradients give.
template <typename A>
__device__ A grad_of(const View& thresholds, const View& grads, std::int64_t n, A d,
                     std::int32_t kind) {
  if (positive(kind)) {
    return d <= record<const A>(thresholds, 0)[n] ? A(0) : record<const A>(grads, 0)[n];
  }
  return d >= record<const A>(thresholds, 1)[n] ? A(0) : -record<const A>(grads, 1)[n];
}

// One block a row. Grid: rows. Reads the row of products and overwrites it by coefficients; adds to
// the row of dx.
template <typename A>
__global__ void __launch_bounds__(kThreads) coefficients_kernel(PairCoefficients job) {
  const Strip& s = job.strip;
  const Row<A> row = row_of<A>(s, block_index());
  const Global<A> kept = updated_row<A>(s.products, row.r);
  const Global<A> dx = updated_row<A>(job.grad_x, row.r);
  A total = 0;
  for (std::int64_t begin = 0; begin < row.width; begin += kThreads) {
    const std::int64_t j = begin + thread_index();
    A near = 0;
    if (j < row.width) {
      A c = 0;
      std::int32_t kind = kind_of(s, row, j);
      if (kind != kNeither) {
        const A d = measure(s, row, j, static_cast<A>(kept[j]), kind);
        if (job.of_rows) c += grad_of(job.row_thresholds, job.row_grads, row.r, d, kind);
        if (job.of_columns) c += grad_of(job.column_thresholds, job.column_grads, j, d, kind);
        c = coefficient(s.metric, c, d);
      }
      near = close_pair(kind) ? c : A(0);
      const A by_product = close_pair(kind) ? A(0) : c;
      total += by_product;
      kept[j] = -by_product;
    }
    if (s.metric != Metric::cosine) add_near(s, row, begin, near, dx);
  }
  if (s.metric != Metric::cosine) add_scaled(s.x, row.r, block_sum<kThreads>(total), dx);
}

unsigned blocks(std::int64_t count) { return static_cast<unsigned>(count); }

}  // namespace

void pair_sums(const PairSums& job, std::uint64_t stream) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    using A = acc_t<decltype(zero)>;
    launch<sums_kernel<A>>({blocks(job.strip.products.size[0])}, kThreads, 0, stream, job);
  });
}

void pair_coefficients(const PairCoefficients& job, std::uint64_t stream) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    using A = acc_t<decltype(zero)>;
    launch<coefficients_kernel<A>>({blocks(job.strip.products.size[0])}, kThreads, 0, stream, job);
  });
}

}  // namespace ecgfast::pair_hinge::cuda
