// CUDA kernels of info_nce; see contract.h.
#include "core/cuda.cuh"
#include "info_nce/contract.h"

namespace ecgfast::info_nce::cuda {
namespace {

constexpr int kRows = 4;  // of a block of backward: they share what it reads of the columns
constexpr int kBackwardThreads = 128;  // four blocks an SM: left to itself, ptxas would spill
constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

__device__ float exp2_of(float x) { return exp2_approx(x); }
__device__ double exp2_of(double x) { return exp2(x); }

template <typename A>
__device__ A infinity_of() {
  return static_cast<A>(__builtin_huge_val());
}

struct Relation {
  bool positive, negative;
};

struct Numbers {
  double alpha, beta, base;
};

template <Kind kKind>
__device__ Numbers numbers_of(const Loss& of) {
  if (kKind != Kind::multi_similarity) return {1, 1, 0};
  const Global<const double> numbers = global<const double>(of.numbers);
  return {numbers[0], numbers[1], numbers[2]};
}

// What a row needs to know its pairs by.
struct Anchor {
  std::int32_t label, group;
  std::int64_t place;
};

__device__ Anchor anchor_of(const Identity& rows, const View& places, std::int64_t r) {
  const bool grouped = rows.groups.data != nullptr;
  return {record<const std::int32_t>(rows.labels, r)[0],
          grouped ? record<const std::int32_t>(rows.groups, r)[0] : 0,
          record<const std::int64_t>(places, r)[0]};
}

struct ColumnIds {
  std::int32_t label, group;
};

__device__ ColumnIds ids_at(const Identity& columns, std::int64_t j) {
  const bool grouped = columns.groups.data != nullptr;
  return {global<const std::int32_t>(columns.labels)[j],
          grouped ? global<const std::int32_t>(columns.groups)[j] : 0};
}

// Without groups, labels stand for them.
__device__ Relation relate(const Anchor& a, const ColumnIds& column, std::int64_t j, bool grouped) {
  const bool other = j != a.place;
  const bool apart = !grouped || column.group != a.group;
  return {other && column.label == a.label, other && column.label != a.label && apart};
}

// The greatest value of a block's threads, none of them NaN, returned to every one of them.
template <int kThreads, typename A>
__device__ A block_maximum(A value) {
  ECGFAST_SHARED(A, partial, kThreads / 32);
  for (int step = 16; step > 0; step /= 2) {
    const A other = shuffle_xor(value, step);
    value = other > value ? other : value;
  }
  sync_block();  // a former call may still be reading
  if (lane_index() == 0) partial[warp_index()] = value;
  sync_block();
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    value = partial[warp] > value ? partial[warp] : value;
  }
  return value;
}

// sum 2^z as 2^shift * sum: the shift is the greatest exponent so far.
template <typename A>
struct LogSum {
  A shift, sum;
};

template <typename A>
__device__ void add(LogSum<A>& to, A z) {
  if (z > to.shift) {
    to.sum = to.sum * exp2_of(to.shift - z) + 1;
    to.shift = z;
  } else {
    to.sum += exp2_of(z - to.shift);  // a NaN comes here
  }
}

// Of all threads of a block: {shift, log2 of the sum}, the same for every one of them.
template <int kThreads, typename A>
__device__ LogSum<double> block_log_sum(const LogSum<A>& own) {
  const A shift = block_maximum<kThreads>(own.shift);
  // Threads without a pair would say -inf - -inf
  const A sum = own.shift == shift ? own.sum : own.sum * exp2_of(own.shift - shift);
  return {static_cast<double>(shift), log2(block_sum<kThreads>(static_cast<double>(sum)))};
}

// One block a row. Grid: R. Reads the row and the columns' ids, nt_xent a second time (positives
// alone), writes loss, count and two numbers.
template <Kind kKind, int kThreads, typename A>
__global__ void __launch_bounds__(kThreads) forward_kernel(Forward job) {
  const std::int64_t r = block_index();
  const std::int64_t columns = job.products.size[1];
  const bool grouped = job.columns.groups.data != nullptr;
  const Anchor anchor = anchor_of(job.rows, job.places, r);
  const Global<const A> products = record<const A>(job.products, r);
  const A scale2 = static_cast<A>(kLog2E * static_cast<double>(global<const A>(job.scale)[0]));
  const Numbers numbers = numbers_of<kKind>(job.of);
  const A positive_slope = static_cast<A>(-numbers.alpha * kLog2E);
  const A negative_slope = static_cast<A>(numbers.beta * kLog2E);
  const A base = static_cast<A>(numbers.base);

  // multi_similarity has two sums, which start from the 1 in log(1 + ...)
  constexpr bool kTwo = kKind == Kind::multi_similarity;
  const bool first_thread = thread_index() == 0;
  LogSum<A> all{-infinity_of<A>(), 0};
  LogSum<A> near = all;
  if (kTwo && first_thread) all = near = {0, 1};
  A under = 0;
  int count = 0;
  for (std::int64_t j = thread_index(); j < columns; j += kThreads) {
    const Relation pair = relate(anchor, ids_at(job.columns, j), j, grouped);
    count += pair.positive;
    if (kTwo) {
      const A apart = products[j] - base;
      if (pair.positive) add(near, product_of(apart, positive_slope));
      if (pair.negative) add(all, product_of(apart, negative_slope));
    } else {
      const A z = product_of(products[j], scale2);
      if (pair.negative || (kKind == Kind::sup_con && pair.positive)) add(all, z);
      if (kKind == Kind::sup_con && pair.positive) under += z;
    }
  }
  const LogSum<double> total = block_log_sum<kThreads>(all);
  const double lse = total.shift + total.sum;
  double loss = lse * kLn2;
  double second = 0;
  std::int64_t counted = 1;
  double first = lse;
  if (kKind == Kind::sup_con) {
    const int positives = block_sum<kThreads>(count);
    // How far the positives lie under the shift, on the average: no sum of large numbers is left
    const double sum = block_sum<kThreads>(static_cast<double>(under));
    second = positives > 0 ? 1.0 / positives : 0.0;
    loss = positives > 0 ? (total.shift - sum * second + total.sum) * kLn2 : 0.0;
    counted = positives > 0;
  }
  if (kTwo) {
    const LogSum<double> close = block_log_sum<kThreads>(near);
    first = close.shift + close.sum;
    second = lse;
    loss = (first / numbers.alpha + second / numbers.beta) * kLn2;
  }
  if (kKind == Kind::nt_xent) {
    A part = 0;
    A shares = 0;
    int left = count;  // of this thread: most of them stop early or have none
    for (std::int64_t j = thread_index(); j < columns && left > 0; j += kThreads) {
      if (!relate(anchor, ids_at(job.columns, j), j, grouped).positive) continue;
      --left;
      const A x =
          static_cast<A>(total.shift - static_cast<double>(product_of(products[j], scale2))) +
          static_cast<A>(total.sum);
      const A e = exp2_of(-fabs(x));
      part += (x > 0 ? x * static_cast<A>(kLn2) : A(0)) + log1p(e);
      shares += (x < 0 ? e : A(1)) / (e + 1);
    }
    loss = block_sum<kThreads>(static_cast<double>(part));
    second = block_sum<kThreads>(static_cast<double>(shares));
    counted = block_sum<kThreads>(count);
  }
  if (!first_thread) return;
  record<A>(job.loss, r)[0] = static_cast<A>(loss);
  record<A>(job.first, r)[0] = static_cast<A>(first);
  record<A>(job.second, r)[0] = static_cast<A>(second);
  record<std::int64_t>(job.counts, r)[0] = counted;
}

// An anchor's numbers for backward.
template <typename A>
struct Anchored {
  A weight, first, second;
};

// What one anchor says of its pair: its part of dz.
template <Kind kKind, typename A>
__device__ A part_of(const Anchored<A>& of, A z, bool positive) {
  if (kKind == Kind::multi_similarity) {
    const A e = exp2_of(z - (positive ? of.first : of.second));
    return positive ? -of.weight * e : of.weight * e;
  }
  const A e = exp2_of(z - of.first);
  if (kKind == Kind::negatives) return of.weight * e;
  if (kKind == Kind::sup_con) {
    return of.second > 0 ? of.weight * (e - (positive ? of.second : A(0))) : A(0);
  }
  return positive ? -of.weight / (e + 1) : of.weight * of.second * e;
}

// One block four rows. Grid: R / 4. Reads their products and the columns' ids and numbers, writes
// dz in place and, of each row, a dot.
template <Kind kKind, typename A>
__global__ void __launch_bounds__(kBackwardThreads, 4) backward_kernel(Backward job) {
  const std::int64_t first_row = static_cast<std::int64_t>(block_index()) * kRows;
  const std::int64_t columns = job.products.size[1];
  const bool grouped = job.columns.ids.groups.data != nullptr;
  const bool anchors = job.columns.weight.data != nullptr;
  const A scale2 = static_cast<A>(kLog2E * static_cast<double>(global<const A>(job.scale)[0]));
  const Numbers numbers = numbers_of<kKind>(job.of);
  const A positive_slope = static_cast<A>(-numbers.alpha * kLog2E);
  const A negative_slope = static_cast<A>(numbers.beta * kLog2E);
  const A base = static_cast<A>(numbers.base);
  const std::int64_t left = job.products.size[0] - first_row;
  const int rows = left < kRows ? static_cast<int>(left) : kRows;

  Anchor anchor[kRows];
  Anchored<A> own[kRows];
  A dot[kRows] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const std::int64_t r = first_row + (i < rows ? i : 0);
    anchor[i] = anchor_of(job.rows.ids, job.places, r);
    own[i] = {record<const A>(job.rows.weight, r)[0], record<const A>(job.rows.first, r)[0],
              record<const A>(job.rows.second, r)[0]};
  }
#pragma unroll 1
  for (std::int64_t j = thread_index(); j < columns; j += kBackwardThreads) {
    const ColumnIds column = ids_at(job.columns.ids, j);
    Anchored<A> theirs{};
    if (anchors) {
      theirs = {global<const A>(job.columns.weight)[j], global<const A>(job.columns.first)[j],
                global<const A>(job.columns.second)[j]};
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (i >= rows) continue;
      const auto place = update<A>(job.products) + (first_row + i) * job.products.stride[0] + j;
      const Relation pair = relate(anchor[i], column, j, grouped);
      A dz = 0;
      if (pair.negative || (kKind != Kind::negatives && pair.positive)) {
        const A s = place[0];
        A z = product_of(s, scale2);
        if (kKind == Kind::multi_similarity) {
          z = product_of(s - base, pair.positive ? positive_slope : negative_slope);
        }
        dz = part_of<kKind>(own[i], z, pair.positive);
        if (anchors) dz += part_of<kKind>(theirs, z, pair.positive);
        dot[i] += dz * s;
      }
      place[0] = dz;
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const double sum = block_sum<kBackwardThreads>(static_cast<double>(dot[i]));
    if (i < rows && thread_index() == 0) record<double>(job.dots, first_row + i)[0] = sum;
  }
}

// The strip is in the dtype of sums.
template <typename Body>
void dispatch_sum(DType dtype, const Body& body) {
  if (dtype == DType::f64) return body(double{});
  body(float{});
}

template <Kind kKind>
void launch_forward(const Forward& job, std::uint64_t stream) {
  dispatch_sum(job.products.dtype, [&](auto zero) {
    using A = decltype(zero);
    const Grid rows{static_cast<unsigned>(job.products.size[0])};
    if (job.products.size[1] <= 1024) {
      launch<forward_kernel<kKind, 64, A>>(rows, 64, 0, stream, job);
    } else {
      launch<forward_kernel<kKind, 256, A>>(rows, 256, 0, stream, job);
    }
  });
}

template <Kind kKind>
void launch_backward(const Backward& job, std::uint64_t stream) {
  dispatch_sum(job.products.dtype, [&](auto zero) {
    const Grid grid{static_cast<unsigned>((job.products.size[0] + kRows - 1) / kRows)};
    launch<backward_kernel<kKind, decltype(zero)>>(grid, kBackwardThreads, 0, stream, job);
  });
}

}  // namespace

void forward(const Forward& job, std::uint64_t stream) {
  switch (job.of.kind) {
    case Kind::nt_xent:
      return launch_forward<Kind::nt_xent>(job, stream);
    case Kind::sup_con:
      return launch_forward<Kind::sup_con>(job, stream);
    case Kind::multi_similarity:
      return launch_forward<Kind::multi_similarity>(job, stream);
    case Kind::negatives:
      return launch_forward<Kind::negatives>(job, stream);
  }
}

void backward(const Backward& job, std::uint64_t stream) {
  switch (job.of.kind) {
    case Kind::nt_xent:
      return launch_backward<Kind::nt_xent>(job, stream);
    case Kind::sup_con:
      return launch_backward<Kind::sup_con>(job, stream);
    case Kind::multi_similarity:
      return launch_backward<Kind::multi_similarity>(job, stream);
    case Kind::negatives:
      return launch_backward<Kind::negatives>(job, stream);
  }
}

}  // namespace ecgfast::info_nce::cuda
