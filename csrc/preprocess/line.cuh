// What a block does to a row in shared memory, step by step; see contract.h. Included by cuda.cu
// alone.
#pragma once

#include "core/biquad.cuh"
#include "core/gaps.h"
#include "core/polyphase.cuh"
#include "preprocess/chain.h"

namespace ecgfast::preprocess::cuda {
namespace {

constexpr int kThreads = kTileThreads;

// The sections of all filters of a job, and which ones those of a step are.
template <typename A>
struct Cascades {
  A gain[kMostSteps];
  int first[kMostSteps], count[kMostSteps];
  ModalSection<A> section[kMostSections];
};

// What a block of threads works with besides the rows.
template <typename A>
struct Tools {
  Shared<A> states;         // (2 * kMaxSections)
  Shared<A> joint;          // (kJoint)
  Shared<int> first, last;  // (kThreads)
};

// How a row came in: absent is one of no sample, and flat as well.
enum class Came : int { moving = 0, flat = 1, absent = 2 };

// A row in shared memory, and a second buffer of its size.
template <typename T>
struct Line {
  Shared<T> buffer, spare;
  int first, samples;
  __device__ Shared<T> begin() const { return buffer + first; }
};

// y = base + ((x - centre) - rest) * scale.
template <typename T>
struct Level {
  T centre, rest, scale, base;
  __device__ T operator()(T x) const { return base + ((x - centre) - rest) * scale; }
};

// The least of what all threads bring, to all of them.
template <typename T>
__device__ T block_least(T value) {
  ECGFAST_SHARED(T, partial, kThreads / 32);
  for (int step = 16; step > 0; step /= 2) {
    const T other = shuffle_xor(value, step);
    value = other < value ? other : value;
  }
  sync_block();  // a former call may still be reading
  if (lane_index() == 0) partial[warp_index()] = value;
  sync_block();
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    const T other = partial[warp];
    value = other < value ? other : value;
  }
  return value;
}

// Calls body(pointer) with row r of a view of any type that samples come in.
template <typename Body>
__device__ void with_samples(const View& view, std::int64_t r, const Body& body) {
  switch (view.dtype) {
    case DType::i16:
      return body(row<const std::int16_t>(view, r));
    case DType::f32:
      return body(row<const float>(view, r));
    case DType::f64:
      return body(row<const double>(view, r));
#if defined(__CUDACC__)
    case DType::f16:
      return body(row<const __half>(view, r));
    case DType::bf16:
      return body(row<const __nv_bfloat16>(view, r));
#endif
    default:
      return;
  }
}

// Likewise with what is written. A row that a normalisation over the record has left here before
// is an output in part.
template <typename Body>
__device__ void with_output(const Preprocess& job, std::int64_t r, const Body& body) {
  const auto of = [&](auto zero) {
    using Y = decltype(zero);
    body(job.by_record ? update<Y>(job.y) + r * job.y.size[2] : row<Y>(job.y, r), zero);
  };
  switch (job.y.dtype) {
    case DType::f32:
      return of(float{});
    case DType::f64:
      return of(double{});
#if defined(__CUDACC__)
    case DType::f16:
      return of(__half{});
    case DType::bf16:
      return of(__nv_bfloat16{});
#endif
    default:
      return;
  }
}

// Whether all samples of the row are alike. For all threads, after a barrier.
template <typename T>
__device__ bool is_flat(const Line<T>& line) {
  const Shared<T> x = line.begin();
  const T first = x[0];
  int others = 0;
  for (int t = thread_index(); t < line.samples; t += kThreads) others += x[t] != first ? 1 : 0;
  return block_sum<kThreads>(others) == 0;
}

// Fills the gaps, NaN so far, between two barriers. Each thread has a part of the row, and looks
// for neighbours in those of others only where its own has none.
template <typename T, typename A>
__device__ void fill(const Line<T>& line, OnGap how, const Tools<A>& tools) {
  const Shared<T> x = line.begin();
  const int part = (line.samples + kThreads - 1) / kThreads;
  const int own = thread_index();
  const int begin = own * part;
  const int end = min(line.samples, begin + part);
  int first = -1;
  int last = -1;
  for (int t = begin; t < end; ++t) {
    if (is_gap(T(x[t]))) continue;
    if (last < 0) first = t;
    last = t;
  }
  tools.first[own] = first;
  tools.last[own] = last;
  sync_block();
  int before = -1;
  for (int other = own - 1; other >= 0 && before < 0; --other) before = tools.last[other];
  for (int t = begin; t < end; ++t) {
    if (!is_gap(T(x[t]))) {
      before = t;
      continue;
    }
    int stop = t + 1;
    while (stop < end && is_gap(T(x[stop]))) ++stop;
    int after = stop < end ? stop : -1;
    for (int other = own + 1; other < kThreads && after < 0; ++other) after = tools.first[other];
    const T left = before < 0 ? T(0) : T(x[before]);
    const T right = after < 0 ? T(0) : T(x[after]);
    for (int i = t; i < stop; ++i) {
      x[i] = how == OnGap::zero ? T(0) : across_gap<T>(i, before, left, after, right);
    }
    t = stop - 1;
  }
  sync_block();
}

// Row r in mV, gaps counted and filled.
template <typename T, typename A>
__device__ Came load_row(const Preprocess& job, std::int64_t r, Line<T>& line,
                         const Tools<A>& tools) {
  const std::int64_t n = r / job.x.size[1];
  const std::int64_t l = r % job.x.size[1];
  const Scale<T> scale(record<const double>(job.gain, n)[l * job.gain.stride[1]],
                       record<const double>(job.offset, n)[l * job.offset.stride[1]]);
  line.first = static_cast<int>(job.front);
  line.samples = static_cast<int>(job.x.size[2]);
  const Shared<T> to = line.begin();
  int gaps = 0;
  with_samples(job.x, r, [&](const auto& x) {
    for (int t = thread_index(); t < line.samples; t += kThreads) {
      const auto given = x[t];
      const T value = is_missing(job, given) ? static_cast<T>(NAN) : scale(given);
      to[t] = value;
      gaps += is_gap(value) ? 1 : 0;
    }
  });
  gaps = block_sum<kThreads>(gaps);
  if (thread_index() == 0) global<std::int32_t>(job.gaps)[r] = gaps;
  if (gaps > 0 && job.on_gap != OnGap::keep) fill(line, job.on_gap, tools);
  if (gaps == line.samples && job.on_gap != OnGap::keep) return Came::absent;
  return is_flat(line) ? Came::flat : Came::moving;
}

template <typename T>
__device__ void resample(const Step& step, Line<T>& line, int front) {
  const Polyphase& phases = step.resample.phases;
  const Beyond beyond = step.resample.beyond;
  const int samples = line.samples;
  const int held = static_cast<int>(first_input(phases, step.start));
  const int end = static_cast<int>(end_input(phases, step.start + step.samples));
  const Shared<T> x = line.begin();
  const Shared<T> y = line.spare + front;
  const T left = beyond == Beyond::zeros ? T(0) : T(x[0]);
  const T right = beyond == Beyond::zeros ? T(0) : T(x[samples - 1]);
  const T slope = beyond == Beyond::line ? (right - left) / static_cast<T>(samples - 1) : T(0);
  for (int i = held + thread_index(); i < 0; i += kThreads) {
    x[i] = left + static_cast<T>(i) * slope;
  }
  for (int i = max(samples, held) + thread_index(); i < end; i += kThreads) {
    x[i] = right + static_cast<T>(i - (samples - 1)) * slope;
  }
  sync_block();
  const Global<const T> taps = global<const T>(phases.taps);
  const Stretch stretch = stretch_from(phases, step.start);
  const int per = static_cast<int>(phases.taps.size[1]);
  for (int j = thread_index(); j < static_cast<int>(step.samples); j += kThreads) {
    y[j] = resample_one<T>(stretch, taps, per, per, x + held, j);
  }
  sync_block();
  const Shared<T> before = line.buffer;
  line.buffer = line.spare;
  line.spare = before;
  line.first = front;
}

template <typename T>
struct Wide;
template <>
struct Wide<float> {
  using type = float4;
  __device__ static void take(float4 v, float (&x)[4]) {
    x[0] = v.x;
    x[1] = v.y;
    x[2] = v.z;
    x[3] = v.w;
  }
  __device__ static float4 give(const float (&x)[4]) { return make_float4(x[0], x[1], x[2], x[3]); }
};
template <>
struct Wide<double> {
  using type = double2;
  __device__ static void take(double2 v, double (&x)[2]) {
    x[0] = v.x;
    x[1] = v.y;
  }
  __device__ static double2 give(const double (&x)[2]) { return make_double2(x[0], x[1]); }
};

// Both ways through a cascade, in place. Vectors of 16 bytes are read, in which half of the banks
// answer at a time; so up to three samples more go through the filter at either end, alike those
// beside them: the state is steady there, and nothing shows.
template <typename T, typename A>
__device__ void filter(const Filter& how, const Cascades<A>& cascades, int step,
                       const Line<T>& line, const Tools<A>& tools) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  const int edge = static_cast<int>(how.edge);
  const Shared<T> x = line.begin();
  const T head = x[0];
  const T tail = x[line.samples - 1];
  for (int j = 1 + thread_index(); j <= edge; j += kThreads) {
    const T near_head = x[j];
    const T near_tail = x[line.samples - 1 - j];
    x[-j] = how.pad == Pad::odd ? 2 * head - near_head : how.pad == Pad::even ? near_head : head;
    x[line.samples - 1 + j] = how.pad == Pad::odd    ? 2 * tail - near_tail
                              : how.pad == Pad::even ? near_tail
                                                     : tail;
  }
  sync_block();

  const Shared<T> all = line.buffer;
  const int low = line.first - edge;
  const int high = line.first + line.samples + edge;
  const int begin = low / kWide * kWide;
  const int end = (high + kWide - 1) / kWide * kWide;
  const ModalSection<A>* const sections = cascades.section + cascades.first[step];
  const int count = cascades.count[step];
#pragma unroll 1
  for (int back = 0; back < 2; ++back) {
    const T level = all[back != 0 ? high - 1 : low];
    const int k = thread_index();
    if (back == 0 && begin + k < low) all[begin + k] = level;
    if (high + k < end) all[high + k] = level;
    if (k < count) {
      tools.states[2 * k] = sections[k].steady[0] * static_cast<A>(level);
      tools.states[2 * k + 1] = sections[k].steady[1] * static_cast<A>(level);
    }
    sync_block();
#pragma unroll 1
    for (int tile = 0; tile < end - begin; tile += kTile) {
      const int own = tile + thread_index() * kChunk;
      A v[kChunk];
#pragma unroll
      for (int q = 0; q < kChunk; q += kWide) {
        T some[kWide] = {};
        const int place = back != 0 ? end - own - q - kWide : begin + own + q;
        if (place >= begin && place < end) {
          Wide<T>::take(load_as<typename Wide<T>::type>(all + place), some);
        }
#pragma unroll
        for (int i = 0; i < kWide; ++i) {
          v[q + i] =
              cascades.gain[step] * static_cast<A>(back != 0 ? some[kWide - 1 - i] : some[i]);
        }
      }
      const int left = tile + kTile < end - begin ? kTile : 0;
#pragma unroll 1
      for (int s = 0; s < count; ++s) {
        run_modal<ModalForm::drive_first>(sections[s], v, tools.states + 2 * s,
                                          tools.joint + s % 2 * (kJoint / 2), left);
      }
#pragma unroll
      for (int q = 0; q < kChunk; q += kWide) {
        T some[kWide];
#pragma unroll
        for (int i = 0; i < kWide; ++i) {
          some[i] = static_cast<T>(back != 0 ? v[q + kWide - 1 - i] : v[q + i]);
        }
        const int place = back != 0 ? end - own - q - kWide : begin + own + q;
        if (place >= begin && place < end) store_as(all + place, Wide<T>::give(some));
      }
      sync_block();
    }
  }
}

// The level of `count` samples that `each` calls its argument with, each thread for its own.
template <typename T, typename Each>
__device__ Level<T> level_of(const Normalise& how, std::int64_t count, bool flat,
                             const Each& each) {
  const T n = static_cast<T>(count);
  const T eps = static_cast<T>(how.eps);
  if (how.by == By::min_max) {
    T low = static_cast<T>(INFINITY);
    T high = -low;
    each([&](T x) {
      low = x < low ? x : low;
      high = x > high ? x : high;
    });
    low = block_least(low);
    const T divisor = -block_least(-high) - low + eps;
    const T span = static_cast<T>(how.high - how.low);
    return {low, 0, flat || divisor == 0 ? T(0) : span / divisor, static_cast<T>(how.low)};
  }
  T mean = 0;
  if (how.by == By::zscore) {
    T sum = 0;
    each([&](T x) { sum += x; });
    mean = block_sum<kThreads>(sum) / n;
  }
  T rest = 0;  // what rounding left of the mean
  T squares = 0;
  each([&](T x) {
    const T centred = x - mean;
    rest += centred;
    squares += centred * centred;
  });
  rest = how.by == By::zscore ? block_sum<kThreads>(rest) / n : T(0);
  const T square = block_sum<kThreads>(squares) / n - rest * rest;
  const T divisor = how.eps_inside ? sqrt(square + eps) : sqrt(square) + eps;
  return {mean, rest, flat || !(divisor > 0) ? T(0) : 1 / divisor, 0};
}

template <typename T>
__device__ Level<T> fixed_level(const Normalise& how, std::int64_t lead) {
  const double mean = global<const double>(how.mean)[how.mean.size[0] == 1 ? 0 : lead];
  const double std = global<const double>(how.std)[how.std.size[0] == 1 ? 0 : lead];
  const T centre = static_cast<T>(mean);
  return {centre, static_cast<T>(mean - centre), static_cast<T>(1 / std), 0};
}

template <typename T>
__device__ void normalise(const Normalise& how, std::int64_t lead, bool flat, const Line<T>& line) {
  const Shared<T> x = line.begin();
  const Level<T> level = how.by == By::fixed
                             ? fixed_level<T>(how, lead)
                             : level_of<T>(how, line.samples, flat, [&](const auto& body) {
                                 for (int t = thread_index(); t < line.samples; t += kThreads) {
                                   body(T(x[t]));
                                 }
                               });
  for (int t = thread_index(); t < line.samples; t += kThreads) x[t] = level(T(x[t]));
  sync_block();
}

template <typename T>
__device__ void store_row(const Preprocess& job, std::int64_t r, const Line<T>& line) {
  const Shared<T> x = line.begin();
  with_output(job, r, [&](const auto& y, auto zero) {
    using Y = decltype(zero);
    for (int t = thread_index(); t < line.samples; t += kThreads) y[t] = static_cast<Y>(T(x[t]));
    if (!job.restore) return;
    with_samples(job.x, r, [&](const auto& given) {
      for (int t = thread_index(); t < line.samples; t += kThreads) {
        const auto source = given[nearest(job, t)];
        if (is_missing(job, source)) y[t] = static_cast<Y>(static_cast<T>(NAN));
      }
    });
  });
}

}  // namespace
}  // namespace ecgfast::preprocess::cuda
