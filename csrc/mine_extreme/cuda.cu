// CUDA kernels of mine_extreme; see contract.h.
#include "core/cuda.cuh"
#include "mine_extreme/contract.h"
#include "mine_extreme/search.h"

namespace ecgfast::mine_extreme::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kNone = INT32_MAX;  // an index after all others

template <typename A>
__device__ A never() {
  return static_cast<A>(__builtin_huge_val());
}

// The least value of all threads of a block, returned to every one of them. No NaN.
template <typename V>
__device__ V block_least(V value) {
  ECGFAST_SHARED(V, partial, kWarps);
  for (int step = 16; step > 0; step /= 2) {
    const V other = shuffle_xor(value, step);
    value = other < value ? other : value;
  }
  sync_block();  // a former call may still be reading
  if (lane_index() == 0) partial[warp_index()] = value;
  sync_block();
  value = partial[0];
  for (int warp = 1; warp < kWarps; ++warp) {
    const V other = partial[warp];
    value = other < value ? other : value;
  }
  return value;
}

// The least key among the legal others; infinity where there is none. A NaN is not legal.
template <typename A, typename Key, typename Legal>
__device__ A least(std::int64_t place, int count, const Key& key, const Legal& legal) {
  A best = never<A>();
  for (int j = thread_index(); j < count; j += kThreads) {
    const A k = key(j);
    if (j != place && k < best && legal(j)) best = k;
  }
  return block_least(best);
}

// The first of the legal others with this key; -1 where there is none.
template <typename A, typename Key, typename Legal>
__device__ std::int64_t first(std::int64_t place, int count, A wanted, const Key& key,
                              const Legal& legal) {
  int found = kNone;
  for (int j = thread_index(); j < count && found == kNone; j += kThreads) {
    if (j != place && key(j) == wanted && legal(j)) found = j;
  }
  found = block_least(found);
  return found == kNone ? -1 : found;
}

template <typename A>
struct Found {
  std::int64_t index;
  A distance;
};

// Warps take 32 columns at a time; what contends is measured by the whole warp.
template <typename T, typename A, typename Legal>
__device__ Found<A> search(const Pairs& job, std::int64_t r, const Sought<A>& s,
                           const Legal& legal) {
  ECGFAST_SHARED(A, distances, kWarps);
  ECGFAST_SHARED(int, indices, kWarps);
  const std::int64_t place = record<const std::int64_t>(job.places, r)[0];
  const int count = static_cast<int>(job.columns.size[0]);
  const std::int64_t length = job.rows.size[1];
  const Global<const A> products = record<const A>(job.products, r);
  const Global<const A> halves = global<const A>(job.column_halves);
  const Global<const T> own = record<const T>(job.rows, r);
  const A bound =
      s.own + least<A>(
                  place, count, [&](int j) { return s.at_most(halves[j], products[j]); },
                  [&](int j) { return legal(j) && s.at_least(halves[j], products[j]) > s.surely; });
  int best = kNone;
  A best_distance = never<A>();  // times the sign
  for (int from = 32 * warp_index(); from < count; from += kThreads) {
    const int j = from + lane_index();
    bool contends = false;
    if (j < count && j != place && legal(j)) {
      contends = s.at_least(halves[j], products[j]) <= bound &&
                 s.at_most(halves[j], products[j]) > s.maybe;
    }
    const unsigned all = ballot(contends);
    for (int lane = 0; lane < 32; ++lane) {
      if ((all >> lane & 1) == 0) continue;
      const Global<const T> other = record<const T>(job.columns, from + lane);
      A sum = 0;
      for (std::int64_t d = lane_index(); d < length; d += 32) {
        const A apart = static_cast<A>(own[d]) - static_cast<A>(other[d]);
        sum += apart * apart;
      }
      sum = warp_sum(sum);
      if (sum > s.floor && s.sign * sum < best_distance) {
        best_distance = s.sign * sum;
        best = from + lane;
      }
    }
  }
  sync_block();  // a former call may still be reading
  if (lane_index() == 0) {
    distances[warp_index()] = best_distance;
    indices[warp_index()] = best;
  }
  sync_block();
  for (int warp = 0; warp < kWarps; ++warp) {
    const A distance = distances[warp];
    const int index = indices[warp];
    if (distance < best_distance || (distance == best_distance && index < best)) {
      best_distance = distance;
      best = index;
    }
  }
  return {best == kNone ? -1 : best, s.sign * best_distance};
}

__device__ void write(View positives, View negatives, View valid, std::int64_t r,
                      std::int64_t place, std::int64_t positive, std::int64_t negative,
                      bool holds) {
  if (thread_index() != 0) return;
  record<std::int64_t>(positives, r)[0] = holds ? positive : itself(place);
  record<std::int64_t>(negatives, r)[0] = holds ? negative : itself(place);
  record<std::uint8_t>(valid, r)[0] = holds;
}

// One block a row. Grid: R. Reads its row of products four times, what contends in columns, and
// the ids and halves of all columns; writes two indices and whether they hold.
template <typename T>
__global__ void __launch_bounds__(kThreads) pairs_kernel(Pairs job) {
  using A = acc_t<T>;
  const std::int64_t r = block_index();
  const std::int32_t label = record<const std::int32_t>(job.row.labels, r)[0];
  const std::int32_t group = record<const std::int32_t>(job.row.groups, r)[0];
  const Global<const std::int32_t> labels = global<const std::int32_t>(job.column.labels);
  const Global<const std::int32_t> groups = global<const std::int32_t>(job.column.groups);
  const A half = record<const A>(job.row_halves, r)[0];
  Found<A> positive{-1, 0};
  Found<A> negative{-1, 0};
  if (half >= 0) {  // the same for the whole block, as all below
    positive = search<T>(job, r, sought(job, half, job.positive == Positive::hardest),
                         [&](int j) { return is_positive(label, labels[j]); });
  }
  if (positive.index >= 0) {
    const Sought<A> s =
        job.negative == Negative::semihard
            ? sought_beyond(job, half, A(global<const A>(job.column_halves)[positive.index]),
                            positive.distance)
            : sought(job, half, job.negative == Negative::easiest);
    negative = search<T>(job, r, s,
                         [&](int j) { return is_negative(label, labels[j], group, groups[j]); });
  }
  write(job.positives, job.negatives, job.valid, r, record<const std::int64_t>(job.places, r)[0],
        positive.index, negative.index, negative.index >= 0);
}

// One block a row. Grid: R. Reads all values and groups four times, writes two indices and whether
// they hold.
template <typename T>
__global__ void __launch_bounds__(kThreads) labels_kernel(Labels job) {
  const std::int64_t r = block_index();
  const int count = static_cast<int>(job.column_values.size[0]);
  const std::int64_t place = record<const std::int64_t>(job.places, r)[0];
  const std::int32_t group = record<const std::int32_t>(job.row_groups, r)[0];
  const T value = record<const T>(job.row_values, r)[0];
  const Global<const T> values = global<const T>(job.column_values);
  const Global<const std::int32_t> groups = global<const std::int32_t>(job.column_groups);
  const auto gap = [&](int j) { return fabs(value - values[j]); };
  const auto minus_gap = [&](int j) { return -fabs(value - values[j]); };
  const auto negative = [&](int j) { return groups[j] != group; };
  const auto positive = [&](int j) { return !job.groups_apart || negative(j); };
  const T near = least<T>(place, count, gap, positive);
  const T far = -least<T>(place, count, minus_gap, negative);
  // without a legal one near is infinite, far minus that
  const bool holds = near <= static_cast<T>(job.max_gap) && near < far;
  std::int64_t nearest = -1;
  std::int64_t farthest = -1;
  if (holds) {
    nearest = first<T>(place, count, near, gap, positive);
    farthest = first<T>(place, count, -far, minus_gap, negative);
  }
  write(job.positives, job.negatives, job.valid, r, place, nearest, farthest, holds);
}

// One block a row. Grid: R. Reads its row of distances 2 K + 2 times, writes K + 1 indices.
template <typename T>
__global__ void __launch_bounds__(kThreads) rows_kernel(Rows job) {
  const std::int64_t r = block_index();
  const int count = static_cast<int>(job.distances.size[1]);
  const std::int64_t place = record<const std::int64_t>(job.places, r)[0];
  const Global<const T> distances = record<const T>(job.distances, r);
  const Global<const std::uint8_t> eligible = global<const std::uint8_t>(job.eligible);
  const auto distance = [&](int j) { return distances[j]; };
  const auto legal = [&](int j) { return eligible[j] != 0; };
  const T least_distance = least<T>(place, count, distance, legal);
  const std::int64_t nearest = first<T>(place, count, least_distance, distance, legal);
  if (thread_index() == 0) record<std::int64_t>(job.nearest, r)[0] = nearest;

  const auto nearness = [&](int j) { return -distances[j]; };
  T last = -never<T>();
  int place_of_last = -1;
  for (std::int64_t k = 0; k < job.farthest.size[1]; ++k) {
    const auto left = [&](int j) {
      const T key = -distances[j];
      return eligible[j] != 0 && (key > last || (key == last && j > place_of_last));
    };
    const T next = least<T>(place, count, nearness, left);
    const std::int64_t found = first<T>(place, count, next, nearness, left);
    if (thread_index() == 0) record<std::int64_t>(job.farthest, r)[k] = found;
    last = next;
    place_of_last = found < 0 ? count : static_cast<int>(found);
  }
}

}  // namespace

void pairs(const Pairs& job, std::uint64_t stream) {
  dispatch_float(job.rows.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch<pairs_kernel<T>>({static_cast<unsigned>(job.rows.size[0])}, kThreads, 0, stream, job);
  });
}

// Labels and distances are wide: the border has refused halves.
template <typename Body>
static void dispatch_wide(DType dtype, const Body& body) {
  dtype == DType::f64 ? body(double{}) : body(float{});
}

void labels(const Labels& job, std::uint64_t stream) {
  dispatch_wide(job.row_values.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch<labels_kernel<T>>({static_cast<unsigned>(job.row_values.size[0])}, kThreads, 0, stream,
                             job);
  });
}

void rows(const Rows& job, std::uint64_t stream) {
  dispatch_wide(job.distances.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch<rows_kernel<T>>({static_cast<unsigned>(job.distances.size[0])}, kThreads, 0, stream,
                           job);
  });
}

}  // namespace ecgfast::mine_extreme::cuda
