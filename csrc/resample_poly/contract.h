// resample_poly: sampling rates in a rational ratio, by a filter of each output's own or by lines.
//
// Math      x (N, L, T); y (N, L, Y); with the table of core/polyphase.h
//             y[n] = sum over k < per of taps[n mod up][k] * x[first_input(n) + k]
//           where x outside of its T samples is 0, or the nearest end, or on the line through both
//           ends (Edges). Straight lines between samples are a filter of 2 taps. The gradient is
//           the same map with up and down exchanged, h reversed and zeros outside
// Shapes    x (N, L, T), last axis dense, N and L of any stride; y (N, L, Y) dense; taps (up, per)
//           of the type that sums are made in; gaps (N * L, tiles); scratch (threads, bytes)
// Units     y in those of x; up and down without a common divisor
// Cost      O(N L Y per): a multiply-add a tap, 41 taps an output when the rate is halved
// Traffic   least: x once, y once. A tile of outputs and what they need of 16 rows stay in L2 on
//           the CPU, in shared memory on CUDA
// Numbers   sums in f32 for f16, bf16, f32 and in f64 for f64, in the order of the inputs: an
//           output depends neither on its neighbours nor on tiles nor on threads
// Edges     T >= 1, a line needs T >= 2; N L = 0 is a no-op; gaps counts the NaN and infinite
//           samples of a row, each in one tile; OnGap fills them before they are used
// Mirrors   resample_poly_reference in ecgfast/ops/resample_poly.py
#pragma once

#include "core/gaps.h"
#include "core/isa.h"
#include "core/polyphase.h"

namespace ecgfast::resample_poly {

enum class Outside : int { zeros = 0, hold = 1, line = 2 };

constexpr std::int64_t kRows = 16;         // of an item: the most that any level has side by side
constexpr std::int64_t kMostStep = 10000;  // up and down, so that 32 bits count a tile's steps
constexpr std::int64_t kMostTaps = 4096;   // of an output
constexpr std::int64_t kMostTile = 16384;  // outputs
constexpr std::int64_t kMostHeldBytes = 128 * 1024;  // inputs of a tile of one row

struct Resample {
  View x, y, gaps, scratch;
  Polyphase filter;
  Outside outside;
  OnGap on_gap;
  std::int64_t tile;  // outputs of one
};

// What a tile holds of x: the inputs that its outputs need, and its own ones, [own, own_end), which
// together with those of the other tiles are all.
struct Held {
  std::int64_t begin, end, own, own_end;
};

ECGFAST_HD static inline Held held_by(const Resample& job, std::int64_t begin, std::int64_t end) {
  const std::int64_t samples = job.x.size[2];
  const auto inside = [samples](std::int64_t i) { return i < 0 ? 0 : i > samples ? samples : i; };
  Held held = {first_input(job.filter, begin), end_input(job.filter, end), 0, samples};
  if (begin > 0) held.own = inside(held.begin);
  if (end < job.y.size[2]) held.own_end = inside(first_input(job.filter, end));
  if (held.own < held.begin) held.begin = held.own;
  if (held.own_end > held.end) held.end = held.own_end;
  return held;
}

ECGFAST_HD static inline std::int64_t tiles_of(const Resample& job) {
  return (job.y.size[2] + job.tile - 1) / job.tile;
}

ECGFAST_HD static inline std::int64_t tile_end(const Resample& job, std::int64_t begin) {
  return begin + job.tile < job.y.size[2] ? begin + job.tile : job.y.size[2];
}

// Inputs that the widest tile holds.
static inline std::int64_t most_held(const Resample& job) {
  std::int64_t most = 0;
  for (std::int64_t begin = 0; begin < job.y.size[2]; begin += job.tile) {
    const Held held = held_by(job, begin, tile_end(job, begin));
    if (held.end - held.begin > most) most = held.end - held.begin;
  }
  return most;
}

ECGFAST_DECLARE(forward, Resample)

}  // namespace ecgfast::resample_poly
