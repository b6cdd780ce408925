// CPU kernels of pair_hinge on all triplets, compiled once for each instruction set; see
// contract.h.
#include <type_traits>

#include "pair_hinge/cpu_row.h"

namespace ecgfast::pair_hinge::ECGFAST_ISA {
namespace {

constexpr int kFewPositives = 48;  // up to so many are compared one by one: no gathers
constexpr int kPad = 4;            // positives are compared four at a time

// What is known of a row; the arrays lie in the scratch of the thread.
template <typename T>
struct Ranked {
  T* sorted;            // ascending distances of the positives
  std::int32_t* kind;   // of every column
  std::int32_t* rank;   // of every column: how many positives are at most d - m
  std::int32_t* until;  // for every sorted positive: active negatives
  std::int64_t positives, negatives;
  bool nan;
};

template <typename T>
using Key = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

// Bits in the order of the values; no NaN.
template <typename T>
Key<T> key_of(T value) {
  Key<T> bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const Key<T> sign = Key<T>(1) << (8 * sizeof(T) - 1);
  return (bits & sign) != 0 ? ~bits : bits | sign;
}

// Ascending, in place: few by insertion, many byte by byte, by way of `other`.
template <typename T>
void sort_values(T* values, T* other, std::int64_t count) {
  if (count <= kFewPositives) {
    for (std::int64_t i = 1; i < count; ++i) {
      const T value = values[i];
      std::int64_t j = i;
      for (; j > 0 && values[j - 1] > value; --j) values[j] = values[j - 1];
      values[j] = value;
    }
    return;
  }
  std::int32_t starts[sizeof(T)][256] = {};
  for (std::int64_t k = 0; k < count; ++k) {
    Key<T> key = key_of(values[k]);
    for (std::size_t byte = 0; byte < sizeof(T); ++byte, key >>= 8) ++starts[byte][key & 255];
  }
  T* from = values;
  T* to = other;
  for (std::size_t byte = 0; byte < sizeof(T); ++byte) {
    const int shift = static_cast<int>(8 * byte);
    if (starts[byte][key_of(values[0]) >> shift & 255] == count) continue;  // all have this byte
    std::int32_t start = 0;
    for (std::int32_t& slot : starts[byte]) {
      const std::int32_t here = slot;
      slot = start;
      start += here;
    }
    for (std::int64_t k = 0; k < count; ++k) {
      to[starts[byte][key_of(from[k]) >> shift & 255]++] = from[k];
    }
    T* const swapped = from;
    from = to;
    to = swapped;
  }
  for (std::int64_t k = 0; from != values && k < count; ++k) values[k] = from[k];
}

// Ranks of a block of columns among the sorted positives. kPad NaN follow these: none is at most t.
template <typename T>
void take_ranks(const T* __restrict__ sorted, std::int64_t positives, const T* __restrict__ d,
                int count, T margin, std::int32_t* __restrict__ rank) {
  for (int j = 0; j < count; ++j) rank[j] = 0;
  if (positives <= kFewPositives) {
    for (std::int64_t k = 0; k < positives; k += kPad) {
      const T p0 = sorted[k];
      const T p1 = sorted[k + 1];
      const T p2 = sorted[k + 2];
      const T p3 = sorted[k + 3];
#pragma omp simd
      for (int j = 0; j < count; ++j) {
        const T t = d[j] - margin;
        rank[j] += (p0 <= t ? 1 : 0) + (p1 <= t ? 1 : 0) + (p2 <= t ? 1 : 0) + (p3 <= t ? 1 : 0);
      }
    }
    return;
  }
  // The same steps for all columns, so that they go side by side.
  std::int32_t left = static_cast<std::int32_t>(positives);
  for (; left > 1; left -= left / 2) {
    const std::int32_t half = left / 2;
#pragma omp simd
    for (int j = 0; j < count; ++j) {
      rank[j] += sorted[rank[j] + half - 1] <= d[j] - margin ? half : 0;
    }
  }
#pragma omp simd
  for (int j = 0; j < count; ++j) rank[j] += sorted[rank[j]] <= d[j] - margin ? 1 : 0;
}

// Overwrites the row of products by distances, and ranks all columns among the positives.
template <Metric kMetric, typename T>
Ranked<T> rank_row(const Strip& s, const View& values, const View& numbers, std::int64_t r,
                   int worker, T margin) {
  const std::int64_t width = s.products.size[1];
  T* const d = record<T>(s.products, r);
  Ranked<T> row{};
  row.sorted = record<T>(values, worker);
  row.kind = record<std::int32_t>(numbers, worker);
  row.rank = row.kind + width;
  row.until = row.rank + width;
  std::int64_t found = 0;
  std::int64_t negatives = 0;
  std::int32_t nan = 0;
  for (std::int64_t begin = 0; begin < width; begin += kBlock) {
    const int count = block_at(begin, width);
    std::int32_t* const kind = row.kind + begin;
    take_kinds(s, r, begin, count, kind);
    measure<kMetric>(s, r, begin, count, d + begin, kind, d + begin);
    std::int32_t pushed = 0;
#pragma omp simd reduction(+ : pushed) reduction(| : nan)
    for (int j = 0; j < count; ++j) {
      pushed += negative(kind[j]) ? 1 : 0;
      nan |= (kind[j] & 3) != kNeither && d[begin + j] != d[begin + j] ? 1 : 0;
    }
    negatives += pushed;
    for (int j = 0; j < count; ++j) {
      row.sorted[found] = d[begin + j];
      found += positive(kind[j]) ? 1 : 0;
    }
  }
  row.positives = found;
  row.negatives = negatives;
  row.nan = nan != 0 && found > 0 && negatives > 0;
  if (found == 0 || negatives == 0 || row.nan) return row;

  sort_values(row.sorted, row.sorted + width + kPad, found);
  for (int k = 0; k < kPad; ++k) row.sorted[found + k] = static_cast<T>(__builtin_nan(""));
  for (std::int64_t k = 0; k <= found; ++k) row.until[k] = 0;
  for (std::int64_t begin = 0; begin < width; begin += kBlock) {
    const int count = block_at(begin, width);
    std::int32_t* const rank = row.rank + begin;
    take_ranks(row.sorted, found, d + begin, count, margin, rank);
    for (int j = 0; j < count; ++j) row.until[rank[j]] += negative(row.kind[begin + j]) ? 1 : 0;
  }
  for (std::int64_t k = 1; k < found; ++k) row.until[k] += row.until[k - 1];
  return row;
}

template <Metric kMetric, typename T>
void sum_row(const TripletSums& job, std::int64_t r, int worker) {
  const T margin = static_cast<T>(job.margin);
  const Ranked<T> row = rank_row<kMetric, T>(job.strip, job.values, job.numbers, r, worker, margin);
  double sum = row.nan ? __builtin_nan("") : 0.0;
  std::int64_t active = 0;
  const bool any = row.positives > 0 && row.negatives > 0 && !row.nan;
  for (std::int64_t k = 0; any && k < row.positives; ++k) {
    active += row.until[k];
    // No positive that is never active takes part, be it infinite.
    if (row.until[k] > 0) sum += row.until[k] * static_cast<double>(row.sorted[k]);
  }
  if (active > 0) {
    const T* const d = record<const T>(job.strip.products, r);
    const std::int32_t positives = static_cast<std::int32_t>(row.positives);
    double far = 0;
#pragma omp simd reduction(+ : far)
    for (std::int64_t j = 0; j < job.strip.products.size[1]; ++j) {
      const std::int32_t times = negative(row.kind[j]) ? positives - row.rank[j] : 0;
      far += times == 0 ? 0.0 : static_cast<double>(times) * static_cast<double>(d[j] - margin);
    }
    sum -= far;
  }
  data_at<T>(job.sums, r) = static_cast<T>(sum);
  record<std::int64_t>(job.counts, 0)[r] = active;
  record<std::int64_t>(job.counts, 1)[r] = row.positives * row.negatives;
}

template <Metric kMetric, typename T>
void coefficients_of_row(const TripletCoefficients& job, std::int64_t r, int worker) {
  const Strip& s = job.strip;
  const std::int64_t width = s.products.size[1];
  const std::int64_t length = s.x.size[1];
  const T* const x = record<const T>(s.x, r);
  T* const d = record<T>(s.products, r);
  T* const dx = record<T>(job.grad_x, r);
  const T g = data_at<const T>(job.grads, r);
  const Ranked<T> row =
      rank_row<kMetric, T>(s, job.values, job.numbers, r, worker, static_cast<T>(job.margin));
  if (row.positives == 0 || row.negatives == 0) {
    for (std::int64_t j = 0; j < width; ++j) d[j] = 0;
    return;
  }
  double total = 0;
  const std::int32_t positives = static_cast<std::int32_t>(row.positives);
  for (std::int64_t begin = 0; begin < width; begin += kBlock) {
    const int count = block_at(begin, width);
    std::int32_t times[kBlock];
    T c[kBlock];
    std::int32_t rank[kBlock];
    T own[kBlock];
    int found = 0;
    for (int j = 0; j < count; ++j) {
      own[found] = d[begin + j];
      found += positive(row.kind[begin + j]) ? 1 : 0;
    }
    // Where a positive stands itself; equal ones have the same active negatives.
    if (!row.nan) take_ranks(row.sorted, row.positives, own, found, T(0), rank);
    found = 0;
    for (int j = 0; j < count; ++j) {
      const std::int32_t kind = row.kind[begin + j];
      times[j] = negative(kind) ? row.rank[begin + j] - positives : 0;
      if (!row.nan && positive(kind)) times[j] = row.until[rank[found++] - 1];
    }
    T sum = 0;
    std::int32_t any = 0;
#pragma omp simd reduction(+ : sum) reduction(| : any)
    for (int j = 0; j < count; ++j) {
      const std::int32_t kind = row.kind[begin + j];
      const T grad = row.nan && (kind & 3) != kNeither ? static_cast<T>(__builtin_nan(""))
                     : times[j] == 0                   ? T(0)
                                                       : static_cast<T>(times[j]) * g;
      c[j] = coefficient(kMetric, grad, d[begin + j]);
      const bool close = close_pair(kind);
      any |= close ? 1 : 0;
      sum += close ? T(0) : c[j];
      d[begin + j] = close ? c[j] : -c[j];
    }
    total += sum;
    for (int j = 0; any && j < count; ++j) {
      if (close_pair(row.kind[begin + j]) && c[j] != 0) {
        add_difference(dx, x, record<const T>(s.y, begin + j), length, c[j]);
      }
    }
  }
  if (kMetric != Metric::cosine) add_scaled(dx, x, length, static_cast<T>(total));
}

template <typename T>
void columns_of_block(const ColumnCoefficients& job, std::int64_t begin, int count) {
  const Strip& s = job.strip;
  const std::int64_t length = s.x.size[1];
  const std::int32_t* const labels = data<std::int32_t>(s.column_labels) + begin;
  T total[kBlock] = {};
  for (std::int64_t r = 0; r < s.products.size[0]; ++r) {
    T* const kept = record<T>(s.products, r) + begin;
    const T g = data_at<const T>(job.grads, r);
    const std::int32_t label = data<std::int32_t>(s.row_labels)[r];
    std::int32_t any = 0;
#pragma omp simd reduction(| : any)
    for (int j = 0; j < count; ++j) {
      const bool close = marked(kept[j], g, labels[j] == label);
      any |= close ? 1 : 0;
      total[j] -= close ? T(0) : kept[j];
    }
    for (int j = 0; any && j < count; ++j) {
      if (!marked(kept[j], g, labels[j] == label)) continue;
      add_difference(record<T>(job.grad_y, begin + j), record<const T>(s.y, begin + j),
                     record<const T>(s.x, r), length, kept[j]);
      kept[j] = 0;
    }
  }
  for (int j = 0; j < count; ++j) {
    add_scaled(record<T>(job.grad_y, begin + j), record<const T>(s.y, begin + j), length, total[j]);
  }
}

}  // namespace

void triplet_sums(const TripletSums& job, Range rows) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    with_metric(job.strip.metric, [&](auto metric) {
      for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        sum_row<decltype(metric)::value, decltype(zero)>(job, r, rows.worker);
      }
    });
  });
}

void triplet_coefficients(const TripletCoefficients& job, Range rows) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    with_metric(job.strip.metric, [&](auto metric) {
      for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        coefficients_of_row<decltype(metric)::value, decltype(zero)>(job, r, rows.worker);
      }
    });
  });
}

void column_coefficients(const ColumnCoefficients& job, Range columns) {
  dispatch_float(job.strip.products.dtype, [&](auto zero) {
    for (std::int64_t begin = columns.begin; begin < columns.end; begin += kBlock) {
      columns_of_block<decltype(zero)>(job, begin, block_at(begin, columns.end));
    }
  });
}

}  // namespace ecgfast::pair_hinge::ECGFAST_ISA
