// CPU kernels of mine_sampled, compiled once for each instruction set; see contract.h.
#include <cmath>

#include "core/exp_lanes.h"
#include "core/search.h"
#include "mine_sampled/draws.h"

namespace ecgfast::mine_sampled::ECGFAST_ISA {
namespace {

using std::sqrt;

template <typename Body>
void dispatch(DType dtype, const Body& body) {
  if (dtype == DType::f64) return body(double{});
  body(float{});
}

template <typename T>
bits_t<T> load_numbers(const std::int32_t* p) {
  typedef std::int32_t narrow __attribute__((vector_size(4 * kLanes<T>)));
  narrow v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, bits_t<T>);
}

// A vector of columns, from this one on; tests take it as they take a single column.
template <typename T>
struct Lanes {
  std::int32_t first;
};

template <typename T>
bits_t<T> columns_of(Lanes<T> j) {
  bits_t<T> column = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) column[lane] = j.first + lane;
  return column;
}

// The columns as one anchor sees them.
struct Row {
  const std::int32_t* labels;
  const std::int32_t* groups;
  std::int32_t label, group, place;
  std::int64_t columns;
};

bool positive(const Row& row, std::int32_t j) {
  return is_positive(row.label, row.labels[j]) & (j != row.place);
}
bool negative(const Row& row, std::int32_t j) {
  return is_negative(row.label, row.labels[j], row.group, row.groups[j]) & (row.labels[j] >= 0) &
         (j != row.place);
}
template <typename T>
bits_t<T> positive(const Row& row, Lanes<T> j) {
  return (load_numbers<T>(row.labels + j.first) == row.label) & (columns_of(j) != row.place);
}
template <typename T>
bits_t<T> negative(const Row& row, Lanes<T> j) {
  const bits_t<T> label = load_numbers<T>(row.labels + j.first);
  const bits_t<T> group = load_numbers<T>(row.groups + j.first);
  return (label != row.label) & (group != row.group) & (label >= 0) & (columns_of(j) != row.place);
}

template <typename Job>
Row row_of(const Job& job, std::int64_t r) {
  const auto numbers = [](const View& view) { return static_cast<std::int32_t*>(view.data); };
  const bool grouped = job.row.groups.data != nullptr;
  const std::int32_t* const row_groups = numbers(grouped ? job.row.groups : job.row.labels);
  const std::int32_t* const groups = numbers(grouped ? job.column.groups : job.column.labels);
  return {numbers(job.column.labels),
          groups,
          numbers(job.row.labels)[r],
          row_groups[r],
          static_cast<std::int32_t>(*record<const std::int64_t>(job.places, r)),
          job.column.labels.size[0]};
}

template <typename T, typename Test>
std::int64_t count(std::int64_t begin, std::int64_t end, const Test& test) {
  bits_t<T> hits = {};
  std::int64_t j = begin;
  for (; j + kLanes<T> <= end; j += kLanes<T>) hits -= test(Lanes<T>{static_cast<std::int32_t>(j)});
  std::int64_t sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += hits[lane];
  for (; j < end; ++j) sum += test(static_cast<std::int32_t>(j)) ? 1 : 0;
  return sum;
}

// Number k of those that pass, in the order of columns; there are more than k.
template <typename T, typename Test>
std::int64_t pick(std::int64_t columns, std::int64_t k, const Test& test) {
  std::int64_t begin = 0;
  for (;; begin += kChunk) {
    const std::int64_t end = begin + kChunk < columns ? begin + kChunk : columns;
    const std::int64_t here = count<T>(begin, end, test);
    if (k < here) break;
    k -= here;
  }
  std::int32_t j = static_cast<std::int32_t>(begin);
  for (;; ++j) {
    if (test(j) && k-- == 0) return j;
  }
}

constexpr int kAbreast = 4;  // vectors

template <typename T>
struct Weights {
  T power, least, most;
};

// Columns of one chunk; those past the last column of all have the label of nobody.
template <typename T>
struct Chunk {
  const T* products;
  const std::int32_t* labels;
  const std::int32_t* groups;
  std::int32_t first;
};

template <typename T>
struct Tail {
  T products[kChunk];
  std::int32_t labels[kChunk];
  std::int32_t groups[kChunk];
};

template <typename T>
Chunk<T> chunk_of(const Row& row, const T* products, std::int64_t k, Tail<T>& tail) {
  const std::int64_t first = k * kChunk;
  const std::int64_t rest = row.columns - first;
  const Chunk<T> inside{products + first, row.labels + first, row.groups + first,
                        static_cast<std::int32_t>(first)};
  if (rest >= kChunk) return inside;
  for (int j = 0; j < kChunk; ++j) {
    tail.products[j] = j < rest ? inside.products[j] : T(0);
    tail.labels[j] = j < rest ? inside.labels[j] : -1;
    tail.groups[j] = j < rest ? inside.groups[j] : -1;
  }
  return {tail.products, tail.labels, tail.groups, inside.first};
}

// Writes the log weights of a chunk, -inf for who is not legal, and returns their maximum.
template <typename T>
T log_weights(const Row& row, const Weights<T>& by, const Chunk<T>& chunk, T* weights) {
  using V = vec_t<T>;
  using B = bits_t<T>;
  constexpr int kW = kLanes<T>;
  B column = columns_of(Lanes<T>{chunk.first});
  V maximum = broadcast(-static_cast<T>(INFINITY));
  for (int from = 0; from < kChunk; from += kAbreast * kW) {
    V logs[2 * kAbreast];
    B legal[kAbreast];
#pragma GCC unroll 4
    for (int r = 0; r < kAbreast; ++r) {
      const int at = from + r * kW;
      const B label = load_numbers<T>(chunk.labels + at);
      const B group = load_numbers<T>(chunk.groups + at);
      const V c = load(chunk.products + at);
      legal[r] = (label != row.label) & (group != row.group) & (label >= 0) &
                 (column != row.place) & (B)(c > by.least);
      column += kW;
      const V above = c > lowest<T>() ? c : broadcast(lowest<T>());
      const V below = above < by.most ? above : broadcast(by.most);
      logs[r] = T(1) - below * below;
      logs[kAbreast + r] = T(1) - below;
    }
#pragma GCC unroll 8
    for (int r = 0; r < 2 * kAbreast; ++r) logs[r] = log2_lanes<T>(logs[r]);
#pragma GCC unroll 4
    for (int r = 0; r < kAbreast; ++r) {
      const V weight = by.power * logs[r] - T(0.5) * logs[kAbreast + r];
      const V shown = legal[r] ? weight : broadcast(-static_cast<T>(INFINITY));
      store(weights + from + r * kW, shown);
      maximum = shown > maximum ? shown : maximum;
    }
  }
  T highest = maximum[0];
  for (int lane = 1; lane < kW; ++lane) highest = maximum[lane] > highest ? maximum[lane] : highest;
  return highest;
}

// Takes the logarithm off a chunk's weights, the largest being 1, and returns their sum.
template <typename T>
T raise(T* weights, T highest) {
  using V = vec_t<T>;
  constexpr int kW = kLanes<T>;
  V sum[kAbreast] = {};
  for (int from = 0; from < kChunk; from += kAbreast * kW) {
#pragma GCC unroll 4
    for (int r = 0; r < kAbreast; ++r) {
      const V power = exp2_lanes<T>(load(weights + from + r * kW) - highest);
      store(weights + from + r * kW, power);
      sum[r] += power;
    }
  }
  const V all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  T total = 0;
  for (int lane = 0; lane < kW; ++lane) total += all[lane];
  return total;
}

// Of the negatives of any distance: uniform, or the one with the largest product.
template <typename T>
std::int64_t choose_without_legal(const Row& row, const T* products, int policy,
                                  std::int64_t negatives, std::uint32_t word) {
  const auto is_none = [&](auto j) { return negative(row, j); };
  if (policy == kUniform) return pick<T>(row.columns, below(word, negatives), is_none);
  std::int64_t best = -1;
  for (std::int32_t j = 0; j < static_cast<std::int32_t>(row.columns); ++j) {
    if (negative(row, j) && (best < 0 || products[j] > products[best])) best = j;
  }
  return best;
}

template <typename T>
void draw_weighted(const Weighted& job, const Weights<T>& by, PhiloxKey key, std::int64_t r) {
  const Row row = row_of(job, r);
  const T* const products = record<const T>(job.strip, r);
  const std::int64_t samples = job.negatives.size[1];
  const std::int64_t chunks = job.chunks.size[2];
  std::int64_t* const negatives = record<std::int64_t>(job.negatives, r);
  std::uint8_t* const valid = record<std::uint8_t>(job.valid, r);
  double* const highest = record<double>(job.chunks, r);
  double* const sums = highest + chunks;
  alignas(kVectorBytes) T weights[kChunk];
  Tail<T> tail;

  double peak = -INFINITY;
  for (std::int64_t k = 0; row.label >= 0 && k < chunks; ++k) {
    const T top = log_weights(row, by, chunk_of(row, products, k, tail), weights);
    highest[k] = static_cast<double>(top);
    sums[k] = top > -static_cast<T>(INFINITY) ? static_cast<double>(raise(weights, top)) : 0.0;
    peak = highest[k] > peak ? highest[k] : peak;
  }
  if (peak == -INFINITY) {
    const bool partner = row.label >= 0 && job.policy != kDrop;
    const std::int64_t there =
        partner ? count<T>(0, row.columns, [&](auto j) { return negative(row, j); }) : 0;
    for (std::int64_t s = 0; s < samples; ++s) {
      const std::uint32_t word = words_of(job.first + r, s, kForWeighted, key).word[2];
      negatives[s] = there > 0 ? choose_without_legal(row, products, job.policy, there, word)
                               : itself(row.place);
      valid[s] = there > 0;
    }
    return;
  }
  double total = 0;  // and sums become those of all chunks up to theirs
  for (std::int64_t k = 0; k < chunks; ++k) {
    total += sums[k] * std::exp2(highest[k] - peak);
    sums[k] = total;
  }
  for (std::int64_t s = 0; s < samples; ++s) {
    const PhiloxWords words = words_of(job.first + r, s, kForWeighted, key);
    // The first that reaches the mark has a weight: those without add nothing to the sum.
    const std::int64_t k = first_not_below(sums, chunks, ecgfast::uniform(words.word[0]) * total);
    log_weights(row, by, chunk_of(row, products, k, tail), weights);
    raise(weights, static_cast<T>(highest[k]));
    double up_to[kChunk];
    double sum = 0;
    for (int j = 0; j < kChunk; ++j) up_to[j] = sum += static_cast<double>(weights[j]);
    negatives[s] =
        k * kChunk + first_not_below(up_to, kChunk, ecgfast::uniform(words.word[1]) * sum);
    valid[s] = 1;
  }
}

// Draws among those that pass, or among all where none does.
template <typename T, typename Some, typename All>
std::int64_t draw(const Row& row, std::uint32_t word, const Some& some, const All& all,
                  std::int64_t of_all) {
  const std::int64_t there = count<T>(0, row.columns, some);
  if (there > 0) return pick<T>(row.columns, below(word, there), some);
  return pick<T>(row.columns, below(word, of_all), all);
}

// Squared distances of the anchor, of one column or of a vector of them.
template <typename T>
struct Distances {
  const T* products;
  const T* squares;
  T square;

  T operator()(std::int32_t j) const { return squared_distance(square, squares[j], products[j]); }
  vec_t<T> operator()(Lanes<T> j) const {
    const vec_t<T> d = square + load(squares + j.first) - T(2) * load(products + j.first);
    return d < T(0) ? vec_t<T>{} : d;  // a NaN stays
  }
};

// The least, or with a sign of -1 the largest, distance among those that pass.
template <typename T, typename Test>
T extreme(const Row& row, T sign, const Test& test, const Distances<T>& distance) {
  const T none = static_cast<T>(INFINITY);
  vec_t<T> lanes = broadcast(none);
  std::int32_t j = 0;
  for (; j + kLanes<T> <= row.columns; j += kLanes<T>) {
    const vec_t<T> d = test(Lanes<T>{j}) ? sign * distance(Lanes<T>{j}) : broadcast(none);
    lanes = d < lanes ? d : lanes;
  }
  T least = none;
  for (int lane = 0; lane < kLanes<T>; ++lane) least = lanes[lane] < least ? lanes[lane] : least;
  for (; j < row.columns; ++j) {
    const T d = test(j) ? sign * distance(j) : none;
    least = d < least ? d : least;
  }
  return sign * least;
}

template <typename T>
void draw_uniform(const Uniform& job, PhiloxKey key, std::int64_t r) {
  const Row row = row_of(job, r);
  const std::int64_t samples = job.positives.size[1];
  std::int64_t* const positives = record<std::int64_t>(job.positives, r);
  std::int64_t* const negatives = record<std::int64_t>(job.negatives, r);
  std::uint8_t* const valid = record<std::uint8_t>(job.valid, r);
  const auto is_one = [&](auto j) { return positive(row, j); };
  const auto is_none = [&](auto j) { return negative(row, j); };
  const std::int64_t all_positives = row.label < 0 ? 0 : count<T>(0, row.columns, is_one);
  const std::int64_t all_negatives = row.label < 0 ? 0 : count<T>(0, row.columns, is_none);
  if (all_positives == 0 || all_negatives == 0) {
    for (std::int64_t s = 0; s < samples; ++s) {
      positives[s] = negatives[s] = itself(row.place);
      valid[s] = 0;
    }
    return;
  }
  const bool distances = job.rule != kRandom;
  const Distances<T> distance{distances ? record<const T>(job.strip, r) : nullptr,
                              static_cast<const T*>(job.column_squares.data),
                              distances ? static_cast<const T*>(job.row_squares.data)[r] : T(0)};
  const bool soft = job.rule == kSoftHard;
  const T nearest = soft ? extreme(row, T(1), is_none, distance) : T(0);
  const T farthest = soft ? extreme(row, T(-1), is_one, distance) : T(0);
  for (std::int64_t s = 0; s < samples; ++s) {
    const PhiloxWords words = words_of(job.first + r, s, kForUniform, key);
    valid[s] = 1;
    if (soft) {
      const auto far = [&](auto j) { return positive(row, j) & (distance(j) > nearest); };
      positives[s] = draw<T>(row, words.word[0], far, is_one, all_positives);
    } else {
      positives[s] = pick<T>(row.columns, below(words.word[0], all_positives), is_one);
    }
    if (!distances) {
      negatives[s] = pick<T>(row.columns, below(words.word[1], all_negatives), is_none);
      continue;
    }
    T begin = -static_cast<T>(INFINITY);
    T end = farthest;
    if (!soft) {
      begin = distance(static_cast<std::int32_t>(positives[s]));
      end = semi_hard_end(begin, static_cast<T>(job.margin), job.squared);
    }
    const auto hard = [&](auto j) {
      const auto d = distance(j);
      return negative(row, j) & (d > begin) & (d < end);
    };
    negatives[s] = draw<T>(row, words.word[1], hard, is_none, all_negatives);
  }
}

}  // namespace

void weighted(const Weighted& job, Range rows) {
  const PhiloxKey key = philox_key(*static_cast<const std::int64_t*>(job.seed.data));
  dispatch(job.strip.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Weights<T> by{static_cast<T>(job.power), static_cast<T>(job.least), highest<T>(job.most)};
    for (std::int64_t r = rows.begin; r < rows.end; ++r) draw_weighted<T>(job, by, key, r);
  });
}

void uniform(const Uniform& job, Range rows) {
  const PhiloxKey key = philox_key(*static_cast<const std::int64_t*>(job.seed.data));
  dispatch(job.rule == kRandom ? DType::f32 : job.strip.dtype, [&](auto zero) {
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      draw_uniform<decltype(zero)>(job, key, r);
    }
  });
}

}  // namespace ecgfast::mine_sampled::ECGFAST_ISA
