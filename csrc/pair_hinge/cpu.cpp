// CPU kernels of pair_hinge on pairs, compiled once for each instruction set; see contract.h.
#include "pair_hinge/cpu_row.h"

namespace ecgfast::pair_hinge::ECGFAST_ISA {
namespace {

template <Metric kMetric, typename T>
void sum_row(const PairSums& job, std::int64_t r) {
  const std::int64_t width = job.strip.products.size[1];
  const T* const products = record<const T>(job.strip.products, r);
  const T from = record<const T>(job.thresholds, 0)[r];
  const T upto = record<const T>(job.thresholds, 1)[r];
  double pulled = 0;
  double pushed = 0;
  std::int64_t counts[4] = {};
  for (std::int64_t begin = 0; begin < width; begin += kBlock) {
    const int count = block_at(begin, width);
    std::int32_t kind[kBlock];
    T d[kBlock];
    take_kinds(job.strip, r, begin, count, kind);
    measure<kMetric>(job.strip, r, begin, count, products + begin, kind, d);
    T pull = 0;
    T push = 0;
    std::int32_t pulling = 0;
    std::int32_t pushing = 0;
    std::int32_t positives = 0;
    std::int32_t negatives = 0;
    // One loop each: compilers make branches, not vectors, of choices that exclude each other.
#pragma omp simd reduction(+ : pull, pulling, positives)
    for (int j = 0; j < count; ++j) {
      const T h = hinge(d[j] - from);
      const T counted = positive(kind[j]) ? h : T(0);
      pull += counted;
      pulling += counted > 0 ? 1 : 0;
      positives += positive(kind[j]) ? 1 : 0;
    }
#pragma omp simd reduction(+ : push, pushing, negatives)
    for (int j = 0; j < count; ++j) {
      const T h = hinge(upto - d[j]);
      const T counted = negative(kind[j]) ? h : T(0);
      push += counted;
      pushing += counted > 0 ? 1 : 0;
      negatives += negative(kind[j]) ? 1 : 0;
    }
    pulled += pull;
    pushed += push;
    counts[0] += pulling;
    counts[1] += pushing;
    counts[2] += positives;
    counts[3] += negatives;
  }
  record<T>(job.sums, 0)[r] = static_cast<T>(pulled);
  record<T>(job.sums, 1)[r] = static_cast<T>(pushed);
  for (int k = 0; k < 4; ++k) record<std::int64_t>(job.counts, k)[r] = counts[k];
}

// Adds dLoss/dd of a block that one side's hinges have; thresholds and gradients of every pair, or
// of all (kStep 0).
template <int kStep, typename T>
void add_grads(const std::int32_t* __restrict__ kind, const T* __restrict__ d, int count,
               const T* from, const T* upto, const T* pull, const T* push, T* __restrict__ grad) {
#pragma omp simd
  for (int j = 0; j < count; ++j) {
    const bool pulls = positive(kind[j]) && !(d[j] <= from[kStep * j]);
    const bool pushes = negative(kind[j]) && !(d[j] >= upto[kStep * j]);
    grad[j] += (pulls ? pull[kStep * j] : T(0)) - (pushes ? push[kStep * j] : T(0));
  }
}

template <Metric kMetric, typename T>
void coefficients_of_row(const PairCoefficients& job, std::int64_t r) {
  const Strip& s = job.strip;
  const std::int64_t width = s.products.size[1];
  const std::int64_t length = s.x.size[1];
  const T* const x = record<const T>(s.x, r);
  T* const kept = record<T>(s.products, r);
  T* const dx = record<T>(job.grad_x, r);
  double total = 0;
  for (std::int64_t begin = 0; begin < width; begin += kBlock) {
    const int count = block_at(begin, width);
    std::int32_t kind[kBlock];
    T d[kBlock];
    T c[kBlock] = {};
    take_kinds(s, r, begin, count, kind);
    measure<kMetric>(s, r, begin, count, kept + begin, kind, d);
    if (job.of_rows) {
      const auto own = [&](const View& view, int k) { return record<const T>(view, k) + r; };
      add_grads<0>(kind, d, count, own(job.row_thresholds, 0), own(job.row_thresholds, 1),
                   own(job.row_grads, 0), own(job.row_grads, 1), c);
    }
    if (job.of_columns) {
      const auto from = [&](const View& view, int k) { return record<const T>(view, k) + begin; };
      add_grads<1>(kind, d, count, from(job.column_thresholds, 0), from(job.column_thresholds, 1),
                   from(job.column_grads, 0), from(job.column_grads, 1), c);
    }
    T sum = 0;
    std::int32_t any = 0;
#pragma omp simd reduction(+ : sum) reduction(| : any)
    for (int j = 0; j < count; ++j) {
      c[j] = coefficient(kMetric, c[j], d[j]);
      const T by_product = close_pair(kind[j]) ? T(0) : c[j];
      any |= close_pair(kind[j]) ? 1 : 0;
      sum += by_product;
      kept[begin + j] = -by_product;
    }
    total += sum;
    for (int j = 0; any && j < count; ++j) {
      if (close_pair(kind[j]) && c[j] != 0) {
        add_difference(dx, x, record<const T>(s.y, begin + j), length, c[j]);
      }
    }
  }
  if (kMetric != Metric::cosine) add_scaled(dx, x, length, static_cast<T>(total));
}

}  // namespace

void pair_sums(const PairSums& job, Range rows) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    with_metric(job.strip.metric, [&](auto metric) {
      for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        sum_row<decltype(metric)::value, decltype(zero)>(job, r);
      }
    });
  });
}

void pair_coefficients(const PairCoefficients& job, Range rows) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    with_metric(job.strip.metric, [&](auto metric) {
      for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        coefficients_of_row<decltype(metric)::value, decltype(zero)>(job, r);
      }
    });
  });
}

}  // namespace ecgfast::pair_hinge::ECGFAST_ISA
