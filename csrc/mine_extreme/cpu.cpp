// CPU kernels of mine_extreme, compiled once for each instruction set; see contract.h.
#include "core/dispatch.h"
#include "mine_extreme/contract.h"
#include "mine_extreme/search.h"

namespace ecgfast::mine_extreme::ECGFAST_ISA {
namespace {

constexpr int kStretch = 64;  // columns asked together whether one of them is it

template <typename T>
constexpr T kNever = static_cast<T>(__builtin_huge_val());

// The columns of a row but its own.
template <typename Body>
void for_others(std::int64_t place, int count, const Body& body) {
  const int own = place >= 0 && place < count ? static_cast<int>(place) : count;
  body(0, own);
  if (own < count) body(own + 1, count);
}

// The least key among the legal others; infinity where there is none. A NaN is not legal.
template <typename T, typename Key, typename Legal>
T least(std::int64_t place, int count, const Key& key, const Legal& legal) {
  T best = kNever<T>;
  for_others(place, count, [&](int begin, int end) {
#pragma omp simd reduction(min : best)
    for (int j = begin; j < end; ++j) {
      const T k = key(j);
      best = (legal(j) & (k < best)) ? k : best;
    }
  });
  return best;
}

// Calls body(j) for the others that hold, in ascending order, until it says so.
template <typename Holds, typename Body>
void for_each_that(std::int64_t place, int count, const Holds& holds, const Body& body) {
  bool done = false;
  for_others(place, count, [&](int begin, int end) {
    for (int from = begin; from < end && !done; from += kStretch) {
      const int to = from + kStretch < end ? from + kStretch : end;
      int any = 0;
#pragma omp simd reduction(| : any)
      for (int j = from; j < to; ++j) any |= holds(j);
      for (int j = from; any && !done && j < to; ++j) {
        if (holds(j)) done = body(j);
      }
    }
  });
}

// The first of the legal others with this key; -1 where there is none.
template <typename T, typename Key, typename Legal>
std::int64_t first(std::int64_t place, int count, T wanted, const Key& key, const Legal& legal) {
  std::int64_t found = -1;
  const auto holds = [&](int j) { return legal(j) & (key(j) == wanted); };
  for_each_that(place, count, holds, [&](int j) {
    found = j;
    return true;
  });
  return found;
}

template <typename T>
T direct(const T* __restrict__ a, const T* __restrict__ b, std::int64_t length) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t d = 0; d < length; ++d) sum += (a[d] - b[d]) * (a[d] - b[d]);
  return sum;
}

template <typename T>
struct Found {
  std::int64_t index;
  T distance;
};

template <typename T, typename Legal>
Found<T> search(const Pairs& job, std::int64_t r, const Sought<T>& s, const Legal& legal) {
  const std::int64_t place = *record<const std::int64_t>(job.places, r);
  const int count = static_cast<int>(job.columns.size[0]);
  const T* const products = record<const T>(job.products, r);
  const T* const halves = static_cast<const T*>(job.column_halves.data);
  const T bound =
      s.own +
      least<T>(
          place, count, [&](int j) { return s.at_most(halves[j], products[j]); },
          [&](int j) { return legal(j) & (s.at_least(halves[j], products[j]) > s.surely); });
  const auto contends = [&](int j) {
    return legal(j) & (s.at_least(halves[j], products[j]) <= bound) &
           (s.at_most(halves[j], products[j]) > s.maybe);
  };
  Found<T> best{-1, kNever<T>};
  for_each_that(place, count, contends, [&](int j) {
    const T d =
        direct(record<const T>(job.rows, r), record<const T>(job.columns, j), job.rows.size[1]);
    if (d > s.floor && (best.index < 0 || s.sign * d < s.sign * best.distance)) best = {j, d};
    return s.sign > 0 && best.distance == 0;  // nothing is nearer
  });
  return best;
}

void write(View positives, View negatives, View valid, std::int64_t r, std::int64_t place,
           std::int64_t positive, std::int64_t negative, bool holds) {
  *record<std::int64_t>(positives, r) = holds ? positive : itself(place);
  *record<std::int64_t>(negatives, r) = holds ? negative : itself(place);
  *record<std::uint8_t>(valid, r) = holds;
}

}  // namespace

void pairs(const Pairs& job, Range range) {
  dispatch_float(job.products.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int32_t* const labels = static_cast<const std::int32_t*>(job.column.labels.data);
    const std::int32_t* const groups = static_cast<const std::int32_t*>(job.column.groups.data);
    for (std::int64_t r = range.begin; r < range.end; ++r) {
      const std::int32_t label = *record<const std::int32_t>(job.row.labels, r);
      const std::int32_t group = *record<const std::int32_t>(job.row.groups, r);
      const T half = *record<const T>(job.row_halves, r);
      Found<T> positive{-1, 0};
      Found<T> negative{-1, 0};
      if (half >= 0) {
        positive = search(job, r, sought(job, half, job.positive == Positive::hardest),
                          [&](int j) { return is_positive(label, labels[j]); });
      }
      if (positive.index >= 0) {
        const auto legal = [&](int j) { return is_negative(label, labels[j], group, groups[j]); };
        const Sought<T> s =
            job.negative == Negative::semihard
                ? sought_beyond(job, half, *record<const T>(job.column_halves, positive.index),
                                positive.distance)
                : sought(job, half, job.negative == Negative::easiest);
        negative = search(job, r, s, legal);
      }
      write(job.positives, job.negatives, job.valid, r, *record<const std::int64_t>(job.places, r),
            positive.index, negative.index, negative.index >= 0);
    }
  });
}

void labels(const Labels& job, Range range) {
  dispatch_float(job.row_values.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int count = static_cast<int>(job.column_values.size[0]);
    const T* const values = static_cast<const T*>(job.column_values.data);
    const std::int32_t* const groups = static_cast<const std::int32_t*>(job.column_groups.data);
    for (std::int64_t r = range.begin; r < range.end; ++r) {
      const std::int64_t place = *record<const std::int64_t>(job.places, r);
      const std::int32_t group = *record<const std::int32_t>(job.row_groups, r);
      const T value = *record<const T>(job.row_values, r);
      const auto gap = [&](int j) {
        const T apart = value - values[j];
        return apart < 0 ? -apart : apart;
      };
      const auto minus_gap = [&](int j) { return -gap(j); };
      const auto negative = [&](int j) { return groups[j] != group; };
      const auto positive = [&](int j) { return !job.groups_apart | negative(j); };
      const T near = least<T>(place, count, gap, positive);
      const T far = -least<T>(place, count, minus_gap, negative);
      // without a legal one near is infinite, far minus that
      const bool holds = near <= static_cast<T>(job.max_gap) && near < far;
      write(job.positives, job.negatives, job.valid, r, place,
            holds ? first(place, count, near, gap, positive) : -1,
            holds ? first(place, count, -far, minus_gap, negative) : -1, holds);
    }
  });
}

void rows(const Rows& job, Range range) {
  dispatch_float(job.distances.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int count = static_cast<int>(job.distances.size[1]);
    const std::uint8_t* const eligible = static_cast<const std::uint8_t*>(job.eligible.data);
    for (std::int64_t r = range.begin; r < range.end; ++r) {
      const std::int64_t place = *record<const std::int64_t>(job.places, r);
      const T* const distances = record<const T>(job.distances, r);
      const auto distance = [&](int j) { return distances[j]; };
      const auto legal = [&](int j) { return eligible[j] != 0; };
      *record<std::int64_t>(job.nearest, r) =
          first(place, count, least<T>(place, count, distance, legal), distance, legal);

      const auto nearness = [&](int j) { return -distances[j]; };
      T last = -kNever<T>;
      int place_of_last = -1;
      for (std::int64_t k = 0; k < job.farthest.size[1]; ++k) {
        const auto left = [&](int j) {
          return (eligible[j] != 0) &
                 ((-distances[j] > last) | ((-distances[j] == last) & (j > place_of_last)));
        };
        const T next = least<T>(place, count, nearness, left);
        const std::int64_t found = first(place, count, next, nearness, left);
        record<std::int64_t>(job.farthest, r)[k] = found;
        last = next;
        place_of_last = found < 0 ? count : static_cast<int>(found);
      }
    }
  });
}

}  // namespace ecgfast::mine_extreme::ECGFAST_ISA
