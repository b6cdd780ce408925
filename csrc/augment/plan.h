// A record's draws as a row of numbers, and how samples are read from it; for CPU and CUDA.
// Included after core/dispatch.h or core/cuda.cuh.
#pragma once

#include "augment/contract.h"
#include "core/philox.h"

namespace ecgfast::augment {

// The first columns of a plan.
constexpr int kFirst = 0;       // which sample of the warped record is the first of y
constexpr int kNoise = 1;       // mV
constexpr int kMains = 2;       // mV
constexpr int kMainsPhase = 3;  // turns
constexpr int kWander = 4;      // mV
constexpr int kEmg = 5;         // mV
constexpr int kHead = 6;

// Where the others begin.
struct Columns {
  std::int64_t knots;   // w of each knot in 2^-16 of a sample; none without a warp
  std::int64_t sines;   // pairs: turns a sample, phase
  std::int64_t bursts;  // pairs: first sample, length; length 0 for one that was not drawn
  std::int64_t masks;   // likewise
  std::int64_t leads;   // a_l, or 0 for a lead that is left out
  std::int64_t count;
};

ECGFAST_HD static inline std::int64_t whole(double number) {
  return static_cast<std::int64_t>(number);
}

ECGFAST_HD static inline Columns columns_of(const Spec& spec, std::int64_t leads) {
  Columns c{};
  c.knots = kHead;
  c.sines = c.knots + (spec.warp > 0 ? whole(spec.knots) + 2 : 0);
  c.bursts = c.sines + 2 * whole(spec.sines);
  c.masks = c.bursts + 2 * whole(spec.bursts[1]);
  c.leads = c.masks + 2 * whole(spec.masks[1]);
  c.count = c.leads + leads;
  return c;
}

// A piece of the warp: sample s of [begin, end) is read at (at + step (s - begin)) / 2^32. In
// integers, so that every device reads the same samples.
struct Piece {
  std::int64_t begin, end, at, step;
};

// Piece j of the K + 1 that lie between knots; `last` is T - 1.
template <typename Knots>
ECGFAST_HD static inline Piece piece_of(const Knots& knots, std::int64_t j, std::int64_t pieces,
                                        std::int64_t last) {
  const std::int64_t begin = j * last / pieces;
  const std::int64_t end = (j + 1) * last / pieces;
  const std::int64_t at = whole(knots[j]) << 16;
  const std::int64_t until = whole(knots[j + 1]) << 16;
  return {begin, end, at, (until - at) / (end - begin)};
}

// The piece that sample s of [0, last] lies in.
ECGFAST_HD static inline std::int64_t piece_at(std::int64_t s, std::int64_t pieces,
                                               std::int64_t last) {
  const std::int64_t j = ((s + 1) * pieces - 1) / last;
  return j < pieces ? j : pieces - 1;
}

ECGFAST_HD static inline float share_of(std::int64_t position) {
  const std::uint32_t rest = static_cast<std::uint32_t>(position) >> 8;
  return static_cast<float>(static_cast<std::int32_t>(rest)) * 0x1p-24f;
}

// On a sample its neighbour is not looked at, which may be NaN.
template <typename A>
ECGFAST_HD static inline A between(A here, A next, float share) {
  return share == 0.0f ? here : here + static_cast<A>(share) * (next - here);
}

ECGFAST_HD static inline std::uint32_t turn_of(double turns) {
  return static_cast<std::uint32_t>(static_cast<std::int64_t>(turns * 0x1p32 + 0.5));
}

ECGFAST_HD static inline float sine_at(std::uint32_t step, std::uint32_t phase, std::int64_t t) {
  return sincos_turn(phase + step * static_cast<std::uint32_t>(t)).sine;
}

// e of one burst, at its sample t of `length`.
ECGFAST_HD static inline float envelope(std::int64_t t, std::int64_t length) {
  const double turn = (static_cast<double>(t) + 0.5) * (0x1p31 / static_cast<double>(length));
  const float sine = sincos_turn(static_cast<std::uint32_t>(static_cast<std::int32_t>(turn))).sine;
  return sine * sine;
}

}  // namespace ecgfast::augment
