// What the CPU does to rows that run side by side, step by step; see contract.h and core/lanes.h.
// Included by cpu.cpp alone.
#pragma once

#include "core/biquad_lanes.h"
#include "core/gaps_lanes.h"
#include "core/polyphase_lanes.h"
#include "preprocess/chain.h"

namespace ecgfast::preprocess {
namespace {

constexpr std::int64_t kBlock = 256;  // samples of a row that are turned at a time, in L1

// As many rows as run side by side, from the first step to the last.
template <typename T>
struct Group {
  T* buffer;
  T* first;  // sample 0, in the buffer
  std::int64_t samples, row;
  int count;
  bool flat[kGroup];    // as they came in
  bool absent[kGroup];  // of no sample
  double value[kGroup], centre[kGroup], scale[kGroup];
};

template <typename T>
Group<T> group_of(std::int64_t row, std::int64_t end) {
  Group<T> group{};
  group.row = row;
  group.count = static_cast<int>(end - row < kGroup ? end - row : kGroup);
  return group;
}

double at(const View& view, std::int64_t row, std::int64_t leads) {  // of (N, L)
  const std::int64_t place = row / leads * view.stride[0] + row % leads * view.stride[1];
  return static_cast<const double*>(view.data)[place];
}

// What was met in a row.
struct Seen {
  std::int64_t gaps;
  bool flat;
};

// Samples in mV, those that are missing as NaN. Rows are read in turn, which no processor
// foresees: it is told of the next part of this one.
template <typename X, typename T>
void scaled(const Preprocess& job, const X* __restrict__ x, std::int64_t count,
            const Scale<T>& scale, T first, T* __restrict__ out, Seen& seen) {
  for (std::int64_t t = 0; t < count; t += 64 / static_cast<std::int64_t>(sizeof(X))) {
    __builtin_prefetch(x + kBlock + t, 0, 2);
  }
#pragma omp simd
  for (std::int64_t t = 0; t < count; ++t) out[t] = scale(x[t]);
  if constexpr (sizeof(X) == 2) {
    const T missing = static_cast<T>(__builtin_nan(""));
    const std::int32_t code = job.has_missing ? job.missing : INT32_MAX;
#pragma omp simd
    for (std::int64_t t = 0; t < count; ++t) {
      out[t] = static_cast<std::int32_t>(x[t]) == code ? missing : out[t];
    }
  }
  T gaps = 0;  // counted in the type of the samples, so that all lanes are of one width
  T others = 0;
#pragma omp simd reduction(+ : gaps, others)
  for (std::int64_t t = 0; t < count; ++t) {
    gaps += is_gap(out[t]) ? T(1) : T(0);
    others += out[t] != first ? T(1) : T(0);
  }
  seen.gaps += static_cast<std::int64_t>(gaps);
  seen.flat = seen.flat && others == 0;
}

// Fills the gaps of a row in the lanes, where sample t is at x[t * kGroup]; tells whether it is
// flat.
template <typename T>
bool filled(OnGap how, std::int64_t samples, T* x) {
  bool flat = true;
  std::int64_t before = -1;
  for (std::int64_t t = 0; t < samples; ++t) {
    if (is_gap(x[t * kGroup])) {
      std::int64_t after = t;
      while (after < samples && is_gap(x[after * kGroup])) ++after;
      const std::int64_t end = after;
      if (after == samples) after = -1;
      const T left = before < 0 ? T(0) : x[before * kGroup];
      const T right = after < 0 ? T(0) : x[after * kGroup];
      for (std::int64_t i = t; i < end; ++i) {
        x[i * kGroup] = how == OnGap::zero ? T(0) : across_gap(i, before, left, after, right);
      }
    }
    before = t;
    flat = flat && x[t * kGroup] == x[0];
  }
  return flat;
}

// Rows to lanes, in mV, gaps counted and filled.
template <typename X, typename T>
void load_group(const Preprocess& job, Group<T>& group) {
  const std::int64_t leads = job.x.size[1];
  alignas(kVectorBytes) T block[kGroup][kBlock];
  const T* rows[kGroup];
  Seen seen[kGroup];
  T first[kGroup] = {};
  for (int lane = 0; lane < kGroup; ++lane) {
    rows[lane] = block[lane < group.count ? lane : group.count - 1];
    seen[lane] = {0, true};
  }
  group.samples = job.x.size[2];
  for (std::int64_t t = 0; t < group.samples; t += kBlock) {
    const std::int64_t count = group.samples - t < kBlock ? group.samples - t : kBlock;
    for (int lane = 0; lane < group.count; ++lane) {
      const std::int64_t r = group.row + lane;
      const X* const x = row<const X>(job.x, r) + t;
      const Scale<T> scale{at(job.gain, r, leads), at(job.offset, r, leads)};
      if (t == 0) {
        Seen one{};
        scaled(job, x, 1, scale, T(0), &first[lane], one);
      }
      scaled(job, x, count, scale, first[lane], block[lane], seen[lane]);
    }
    to_lanes(rows, count, group.first + t * kGroup);
  }
  for (int lane = 0; lane < group.count; ++lane) {
    static_cast<std::int32_t*>(job.gaps.data)[group.row + lane] =
        static_cast<std::int32_t>(seen[lane].gaps);
    if (seen[lane].gaps != 0 && job.on_gap != OnGap::keep) {
      seen[lane].flat = filled(job.on_gap, group.samples, group.first + lane);
    }
    group.flat[lane] = seen[lane].flat;
    group.absent[lane] = seen[lane].gaps == group.samples && job.on_gap != OnGap::keep;
  }
}

template <typename T>
void resample(const Step& step, Group<T>& group, T* fresh, T* fresh_first) {
  const Polyphase& phases = step.resample.phases;
  const T* const last = group.first + (group.samples - 1) * kGroup;
  Edges<T> edges{};
  for (int lane = 0; lane < kGroup && step.resample.beyond != Beyond::zeros; ++lane) {
    edges.left[lane] = group.first[lane];
    edges.right[lane] = last[lane];
    if (step.resample.beyond == Beyond::line) {
      edges.slope[lane] = (last[lane] - group.first[lane]) / static_cast<T>(group.samples - 1);
    }
  }
  const std::int64_t end = step.start + step.samples;
  const std::int64_t held = first_input(phases, step.start);
  T* const x = group.first + held * kGroup;
  extend(edges, group.samples, x, held, end_input(phases, end));
  resample_lanes(phases, x, held, step.start, end, fresh_first);
  group.buffer = fresh;
  group.first = fresh_first;
}

// Of every lane: the sum of squares about the centre, or the sum, or the extremes.
template <typename T>
void squares(Group<T>& group) {
  const Moment centre = load_moment(group.centre);
  Moment sum{};
  for (std::int64_t t = 0; t < group.samples; ++t) {
    Moment m = load_moment(group.first + t * kGroup);
    m = {m.low - centre.low, m.high - centre.high};
    sum.low += m.low * m.low;
    sum.high += m.high * m.high;
  }
  store_moment(group.value, sum);
}

template <typename T>
void sums(Group<T>& group) {
  Moment sum{};
  for (std::int64_t t = 0; t < group.samples; ++t) {
    const Moment m = load_moment(group.first + t * kGroup);
    sum.low += m.low;
    sum.high += m.high;
  }
  store_moment(group.value, sum);
}

template <typename T>
void extremes(Group<T>& group) {
  T low[kGroup], high[kGroup];
  for (int lane = 0; lane < kGroup; ++lane) low[lane] = high[lane] = group.first[lane];
  for (std::int64_t t = 1; t < group.samples; ++t) {
    const T* const x = group.first + t * kGroup;
    for (int lane = 0; lane < kGroup; ++lane) {
      low[lane] = x[lane] < low[lane] ? x[lane] : low[lane];
      high[lane] = x[lane] > high[lane] ? x[lane] : high[lane];
    }
  }
  for (int lane = 0; lane < kGroup; ++lane) {
    group.centre[lane] = low[lane];
    group.value[lane] = high[lane];
  }
}

// Rows of `groups` that stand in a line, `width` of which are normalised as one: leads or records.
template <typename T>
struct Owners {
  Group<T>* groups;
  std::int64_t rows, width;

  // Calls body(group, lane) with the rows of an owner.
  template <typename Body>
  void each(std::int64_t begin, const Body& body) const {
    for (std::int64_t i = begin; i < begin + width; ++i) {
      body(groups[i / kGroup], static_cast<int>(i % kGroup));
    }
  }
  // Likewise with those that count: absent rows do only where there is no other. Returns how many.
  template <typename Body>
  std::int64_t present(std::int64_t begin, const Body& body) const {
    std::int64_t count = 0;
    each(begin, [&](Group<T>& group, int lane) { count += group.absent[lane] ? 0 : 1; });
    each(begin, [&](Group<T>& group, int lane) {
      if (count == 0 || !group.absent[lane]) body(group, lane);
    });
    return count == 0 ? width : count;
  }
  template <typename Body>
  void all(const Body& body) const {
    const std::int64_t count = (rows + kGroup - 1) / kGroup;
    for (std::int64_t g = 0; g < count; ++g) body(groups[g]);
  }
};

static_assert(sizeof(Group<double>) <= kStateBytes * kGroup);

double root(double square, const Normalise& how) {
  return how.eps_inside ? __builtin_sqrt(square + how.eps) : __builtin_sqrt(square) + how.eps;
}

// What every row is moved and scaled by.
template <typename T>
void measure(const Normalise& how, const Owners<T>& owners) {
  if (how.by == By::min_max) {
    owners.all(extremes<T>);
  } else if (how.by == By::zscore) {
    owners.all(sums<T>);
  }
  for (std::int64_t begin = 0; begin < owners.rows; begin += owners.width) {
    double sum = 0, low = __builtin_inf();
    const std::int64_t present = owners.present(begin, [&](Group<T>& group, int lane) {
      sum += group.value[lane];
      low = group.centre[lane] < low ? group.centre[lane] : low;
    });
    const double count = static_cast<double>(present * owners.groups->samples);
    const double centre = how.by == By::zscore ? sum / count : how.by == By::rms ? 0 : low;
    owners.each(begin, [&](Group<T>& group, int lane) { group.centre[lane] = centre; });
  }
  if (how.by != By::min_max) owners.all(squares<T>);
  for (std::int64_t begin = 0; begin < owners.rows; begin += owners.width) {
    double sum = 0, high = -__builtin_inf(), low = 0;
    bool flat = true;
    const std::int64_t present = owners.present(begin, [&](Group<T>& group, int lane) {
      sum += group.value[lane];
      high = group.value[lane] > high ? group.value[lane] : high;
      low = group.centre[lane];
      flat = flat && group.flat[lane];
    });
    const double count = static_cast<double>(present * owners.groups->samples);
    const double divisor = how.by == By::min_max ? high - low + how.eps : root(sum / count, how);
    const double span = how.by == By::min_max ? how.high - how.low : 1;
    const double scale = flat || divisor == 0 ? 0 : span / divisor;
    owners.each(begin, [&](Group<T>& group, int lane) { group.scale[lane] = scale; });
  }
}

template <typename T>
void apply(Group<T>& group, double base) {
  const Moment centre = load_moment(group.centre);
  const Moment scale = load_moment(group.scale);
  const vec_t<double> low = broadcast(base);
  for (std::int64_t t = 0; t < group.samples; ++t) {
    T* const x = group.first + t * kGroup;
    const Moment m = load_moment(x);
    store_moment(
        x, {low + (m.low - centre.low) * scale.low, low + (m.high - centre.high) * scale.high});
  }
}

// Rows [group.row, ...) of `groups`, all that stand in a line.
template <typename T>
void normalise(const Preprocess& job, const Normalise& how, Group<T>* groups, std::int64_t rows) {
  const std::int64_t leads = job.x.size[1];
  const Owners<T> owners{groups, rows, how.record ? leads : 1};
  if (how.by == By::fixed) {
    const std::int64_t first = groups->row;
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t lead = (first + i) % leads;
      const auto of = [lead](const View& view) {
        return static_cast<const double*>(view.data)[view.size[0] == 1 ? 0 : lead];
      };
      groups[i / kGroup].centre[i % kGroup] = of(how.mean);
      groups[i / kGroup].scale[i % kGroup] = 1 / of(how.std);
    }
  } else {
    measure(how, owners);
  }
  const double base = how.by == By::min_max ? how.low : 0;
  owners.all([base](Group<T>& group) { apply(group, base); });
}

// Half of a float's digits, as bfloat16 holds them, to the nearest and to even from between.
std::uint16_t rounded(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <typename T>
void stored(T value, float& y) {
  y = static_cast<float>(value);
}
template <typename T>
void stored(T value, double& y) {
  y = static_cast<double>(value);
}
template <typename T>
void stored(T value, std::uint16_t& y) {
  y = rounded(static_cast<float>(value));
}

template <typename X, typename Y, typename T>
void store_group(const Preprocess& job, const Group<T>& group) {
  alignas(kVectorBytes) T block[kGroup][kBlock];
  T* rows[kGroup];
  for (int lane = 0; lane < kGroup; ++lane) rows[lane] = block[lane];
  for (std::int64_t t = 0; t < group.samples; t += kBlock) {
    const std::int64_t count = group.samples - t < kBlock ? group.samples - t : kBlock;
    if constexpr (sizeof(Y) == sizeof(T)) {
      for (int lane = 0; lane < group.count; ++lane) {
        rows[lane] = row<T>(job.y, group.row + lane) + t;
      }
      from_lanes(group.first + t * kGroup, count, rows, group.count);
    } else {
      from_lanes(group.first + t * kGroup, count, rows, group.count);
      for (int lane = 0; lane < group.count; ++lane) {
        Y* const __restrict__ y = row<Y>(job.y, group.row + lane) + t;
#pragma omp simd
        for (std::int64_t i = 0; i < count; ++i) stored(block[lane][i], y[i]);
      }
    }
  }
  if (!job.restore) return;
  for (std::int64_t r = group.row; r < group.row + group.count; ++r) {
    if (static_cast<const std::int32_t*>(job.gaps.data)[r] == 0) continue;
    const X* const x = row<const X>(job.x, r);
    Y* const y = row<Y>(job.y, r);
    for (std::int64_t k = 0; k < group.samples; ++k) {
      if (is_missing(job, x[nearest(job, k)])) stored(__builtin_nanf(""), y[k]);
    }
  }
}

}  // namespace
}  // namespace ecgfast::preprocess
