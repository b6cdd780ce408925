// CUDA kernels of mine_sampled; see contract.h.
#include "core/cuda.cuh"
#include "mine_sampled/draws.h"

namespace ecgfast::mine_sampled::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

template <typename Body>
void dispatch(DType dtype, const Body& body) {
  if (dtype == DType::f64) return body(double{});
  body(float{});
}

__device__ inline float log2_of(float x) { return log2_approx(x); }
__device__ inline double log2_of(double x) { return log2(x); }
__device__ inline float exp2_of(float x) { return exp2_approx(x); }
__device__ inline double exp2_of(double x) { return exp2(x); }

// The columns as one anchor sees them.
struct Row {
  Global<const std::int32_t> labels;
  Global<const std::int32_t> groups;
  std::int32_t label, group;
  std::int64_t place, columns;
};

template <typename Job>
__device__ Row row_of(const Job& job, std::int64_t r) {
  const bool grouped = job.row.groups.data != nullptr;
  return {global<const std::int32_t>(job.column.labels),
          global<const std::int32_t>(grouped ? job.column.groups : job.column.labels),
          global<const std::int32_t>(job.row.labels)[r],
          global<const std::int32_t>(grouped ? job.row.groups : job.row.labels)[r],
          record<const std::int64_t>(job.places, r)[0],
          job.column.labels.size[0]};
}

__device__ bool positive(const Row& row, std::int64_t j) {
  return is_positive(row.label, row.labels[j]) && j != row.place;
}
__device__ bool negative(const Row& row, std::int64_t j) {
  const std::int32_t label = row.labels[j];
  return is_negative(row.label, label, row.group, row.groups[j]) && label >= 0 && j != row.place;
}

// Number of the lowest bit that is set.
__device__ int first_bit(unsigned bits) { return count_bits((bits & (0u - bits)) - 1u); }

// How many columns pass, to all lanes of the warp.
template <typename Test>
__device__ std::int64_t count(const Row& row, const Test& test) {
  int sum = 0;
  for (std::int64_t j = lane_index(); j < row.columns; j += 32) sum += test(j) ? 1 : 0;
  return warp_sum(sum);
}

// Number k of those that pass, in the order of columns; -1 if there are no more than k.
template <typename Test>
__device__ std::int64_t pick(const Row& row, std::int64_t k, const Test& test) {
  for (std::int64_t first = 0; first < row.columns; first += 32) {
    const std::int64_t j = first + lane_index();
    const bool passes = j < row.columns && test(j);
    const unsigned bits = ballot(passes);
    const int here = count_bits(bits);
    if (k < here) {
      const int before = count_bits(bits & ((1u << lane_index()) - 1u));
      return first + first_bit(ballot(passes && before == k));
    }
    k -= here;
  }
  return -1;
}

// Sums over this lane and those before it, one after the other: no lane's is less than another's
// before it, and those of lanes with 0 are equal. Of all lanes comes back in `total`.
__device__ double sums_up_to_lane(double value, double& total) {
  double sum = total;
  for (int lane = 0; lane < 32; ++lane) {
    total += shuffle(value, lane);
    if (lane <= lane_index()) sum = total;
  }
  return sum;
}

template <typename A>
struct Weights {
  A power, least, most;
};

// -inf for who is not legal.
template <typename A>
__device__ A log_weight(const Row& row, const Weights<A>& by, Global<const A> products,
                        std::int64_t j) {
  if (j >= row.columns || !negative(row, j)) return -static_cast<A>(INFINITY);
  const A c = products[j];
  if (!(c > by.least)) return -static_cast<A>(INFINITY);
  const A bounded = c < lowest<A>() ? lowest<A>() : c > by.most ? by.most : c;
  return by.power * log2_of(1 - bounded * bounded) - A(0.5) * log2_of(1 - bounded);
}

// Of the negatives of any distance: uniform, or the one with the largest product.
template <typename A>
__device__ std::int64_t choose_without_legal(const Row& row, Global<const A> products, int policy,
                                             std::int64_t negatives, std::uint32_t word) {
  if (policy == kUniform) {
    return pick(row, below(word, negatives), [&](std::int64_t j) { return negative(row, j); });
  }
  std::int64_t best = -1;
  A most = -static_cast<A>(INFINITY);
  for (std::int64_t j = lane_index(); j < row.columns; j += 32) {
    if (negative(row, j) && (best < 0 || products[j] > most)) {
      best = j;
      most = products[j];
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const std::int64_t other = shuffle_xor(best, step);
    const A theirs = shuffle_xor(most, step);
    const bool tie = theirs == most && other < best;
    if (other >= 0 && (best < 0 || theirs > most || tie)) {
      best = other;
      most = theirs;
    }
  }
  return best;
}

// One block a row. Grid: R. Its warps read a chunk of the strip each, in turn, and write the
// chunk's maximum and sum; the first warp then draws, and reads one chunk again a sample.
template <typename A>
__global__ void __launch_bounds__(kThreads) weighted_kernel(Weighted job) {
  const std::int64_t r = block_index();
  const Row row = row_of(job, r);
  const Weights<A> by{static_cast<A>(job.power), static_cast<A>(job.least), highest<A>(job.most)};
  const Global<const A> products = record<const A>(job.strip, r);
  const std::int64_t chunks = job.chunks.size[2];
  const Global<double> scratch = update<double>(job.chunks) + r * 2 * chunks;
  const Global<double> sums = scratch + chunks;
  for (std::int64_t k = warp_index(); k < chunks; k += kWarps) {
    const std::int64_t j = k * kChunk + lane_index();
    const A left = log_weight(row, by, products, j);
    const A right = log_weight(row, by, products, j + 32);
    A top = left > right ? left : right;
    for (int step = 16; step > 0; step /= 2) {
      const A other = shuffle_xor(top, step);
      top = other > top ? other : top;
    }
    const bool legal = row.label >= 0 && top > -static_cast<A>(INFINITY);
    const A sum = warp_sum(legal ? exp2_of(left - top) + exp2_of(right - top) : A(0));
    if (lane_index() != 0) continue;
    scratch[k] = legal ? static_cast<double>(top) : -static_cast<double>(INFINITY);
    sums[k] = static_cast<double>(sum);
  }
  sync_block();
  if (warp_index() != 0) return;

  const std::int64_t samples = job.negatives.size[1];
  const Global<std::int64_t> negatives = record<std::int64_t>(job.negatives, r);
  const Global<std::uint8_t> valid = record<std::uint8_t>(job.valid, r);
  const PhiloxKey key = philox_key(global<const std::int64_t>(job.seed)[0]);
  double peak = -static_cast<double>(INFINITY);
  for (std::int64_t k = lane_index(); k < chunks; k += 32) {
    const double top = scratch[k];
    peak = max(peak, top);
  }
  for (int step = 16; step > 0; step /= 2) peak = max(peak, shuffle_xor(peak, step));
  if (peak == -static_cast<double>(INFINITY)) {
    std::int64_t there = 0;
    if (row.label >= 0 && job.policy != kDrop) {
      there = count(row, [&](std::int64_t j) { return negative(row, j); });
    }
    for (std::int64_t s = 0; s < samples; ++s) {
      std::int64_t chosen = itself(row.place);
      if (there > 0) {
        const std::uint32_t word = words_of(job.first + r, s, kForWeighted, key).word[2];
        chosen = choose_without_legal(row, products, job.policy, there, word);
      }
      if (lane_index() != 0) continue;
      negatives[s] = chosen;
      valid[s] = there > 0 ? 1 : 0;
    }
    return;
  }
  double total = 0;  // and sums become those of all chunks up to theirs
  for (std::int64_t first = 0; first < chunks; first += 32) {
    const std::int64_t k = first + lane_index();
    const double scaled = k < chunks ? sums[k] * exp2(scratch[k] - peak) : 0.0;
    const double sum = sums_up_to_lane(scaled, total);
    if (k < chunks) sums[k] = sum;
  }
  sync_warp();
  for (std::int64_t s = 0; s < samples; ++s) {
    const PhiloxWords words = words_of(job.first + r, s, kForWeighted, key);
    // The first that reaches the mark has a weight: those without add nothing to the sum.
    const double mark = ecgfast::uniform(words.word[0]) * total;
    std::int64_t chunk = 0;
    for (std::int64_t first = 0; first < chunks; first += 32) {
      const std::int64_t k = first + lane_index();
      const unsigned reached = ballot(k < chunks && sums[k] >= mark);
      if (reached == 0) continue;
      chunk = first + first_bit(reached);
      break;
    }
    const std::int64_t j = chunk * kChunk + lane_index();
    const A top = static_cast<A>(scratch[chunk]);
    const A left = exp2_of(log_weight(row, by, products, j) - top);
    const A right = exp2_of(log_weight(row, by, products, j + 32) - top);
    double sum = 0;
    const double up_to_left = sums_up_to_lane(static_cast<double>(left), sum);
    const double up_to_right = sums_up_to_lane(static_cast<double>(right), sum);
    const double inner = ecgfast::uniform(words.word[1]) * sum;
    const unsigned lefts = ballot(up_to_left >= inner);
    const unsigned rights = ballot(up_to_right >= inner);
    if (lane_index() != 0) continue;
    negatives[s] = chunk * kChunk + (lefts != 0 ? first_bit(lefts) : 32 + first_bit(rights));
    valid[s] = 1;
  }
}

// Draws among those that pass, or among all where none does.
template <typename Some, typename All>
__device__ std::int64_t draw(const Row& row, std::uint32_t word, const Some& some, const All& all,
                             std::int64_t of_all) {
  const std::int64_t there = count(row, some);
  if (there > 0) return pick(row, below(word, there), some);
  return pick(row, below(word, of_all), all);
}

// One warp a row. Grid: R / 4. Reads the labels, and of the strip its row, several times.
template <typename A>
__global__ void __launch_bounds__(kThreads) uniform_kernel(Uniform job) {
  const std::int64_t r = static_cast<std::int64_t>(block_index()) * kWarps + warp_index();
  if (r >= job.positives.size[0]) return;  // the whole warp
  const Row row = row_of(job, r);
  const std::int64_t samples = job.positives.size[1];
  const Global<std::int64_t> positives = record<std::int64_t>(job.positives, r);
  const Global<std::int64_t> negatives = record<std::int64_t>(job.negatives, r);
  const Global<std::uint8_t> valid = record<std::uint8_t>(job.valid, r);
  const auto is_one = [&](std::int64_t j) { return positive(row, j); };
  const auto is_none = [&](std::int64_t j) { return negative(row, j); };
  const std::int64_t all_positives = row.label < 0 ? 0 : count(row, is_one);
  const std::int64_t all_negatives = row.label < 0 ? 0 : count(row, is_none);
  if (all_positives == 0 || all_negatives == 0) {
    for (std::int64_t s = lane_index(); s < samples; s += 32) {
      positives[s] = itself(row.place);
      negatives[s] = itself(row.place);
      valid[s] = 0;
    }
    return;
  }
  const PhiloxKey key = philox_key(global<const std::int64_t>(job.seed)[0]);
  if (job.rule == kRandom) {
    for (std::int64_t s = 0; s < samples; ++s) {
      const PhiloxWords words = words_of(job.first + r, s, kForUniform, key);
      const std::int64_t p = pick(row, below(words.word[0], all_positives), is_one);
      const std::int64_t n = pick(row, below(words.word[1], all_negatives), is_none);
      if (lane_index() != 0) continue;
      positives[s] = p;
      negatives[s] = n;
      valid[s] = 1;
    }
    return;
  }
  const Global<const A> products = record<const A>(job.strip, r);
  const Global<const A> squares = global<const A>(job.column_squares);
  const A square = global<const A>(job.row_squares)[r];
  const auto distance = [&](std::int64_t j) {
    return squared_distance(square, static_cast<A>(squares[j]), static_cast<A>(products[j]));
  };
  A nearest = static_cast<A>(INFINITY);
  A farthest = -static_cast<A>(INFINITY);
  if (job.rule == kSoftHard) {
    for (std::int64_t j = lane_index(); j < row.columns; j += 32) {
      const A d = distance(j);
      if (is_none(j) && d < nearest) nearest = d;
      if (is_one(j) && d > farthest) farthest = d;
    }
    for (int step = 16; step > 0; step /= 2) {
      const A nearer = shuffle_xor(nearest, step);
      const A farther = shuffle_xor(farthest, step);
      nearest = nearer < nearest ? nearer : nearest;
      farthest = farther > farthest ? farther : farthest;
    }
  }
  for (std::int64_t s = 0; s < samples; ++s) {
    const PhiloxWords words = words_of(job.first + r, s, kForUniform, key);
    std::int64_t p = 0;
    A begin = -static_cast<A>(INFINITY);
    A end = farthest;
    if (job.rule == kSoftHard) {
      p = draw(
          row, words.word[0], [&](std::int64_t j) { return is_one(j) && distance(j) > nearest; },
          is_one, all_positives);
    } else {
      p = pick(row, below(words.word[0], all_positives), is_one);
      begin = distance(p);
      end = semi_hard_end(begin, static_cast<A>(job.margin), job.squared);
    }
    const auto is_hard = [&](std::int64_t j) {
      const A d = distance(j);
      return is_none(j) && d > begin && d < end;
    };
    const std::int64_t n = draw(row, words.word[1], is_hard, is_none, all_negatives);
    if (lane_index() != 0) continue;
    positives[s] = p;
    negatives[s] = n;
    valid[s] = 1;
  }
}

}  // namespace

void weighted(const Weighted& job, std::uint64_t stream) {
  dispatch(job.strip.dtype, [&](auto zero) {
    const Grid grid{static_cast<unsigned>(job.strip.size[0])};
    launch<weighted_kernel<decltype(zero)>>(grid, kThreads, 0, stream, job);
  });
}

void uniform(const Uniform& job, std::uint64_t stream) {
  dispatch(job.rule == kRandom ? DType::f32 : job.strip.dtype, [&](auto zero) {
    const Grid grid{static_cast<unsigned>((job.positives.size[0] + kWarps - 1) / kWarps)};
    launch<uniform_kernel<decltype(zero)>>(grid, kThreads, 0, stream, job);
  });
}

}  // namespace ecgfast::mine_sampled::cuda
