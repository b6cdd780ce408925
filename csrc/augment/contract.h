// augment: what varies between ECGs of one heart, drawn anew: time, scale, noise, leads.
//
// Math      x (N, L, T) -> y (N, L, S); i is the id of a record, l a lead, t a sample of y. Steps
//           in this order, what is off leaving out its own; draws are per record where no lead is
//           named:
//           warp   a monotone piecewise linear map w of [0, T - 1] onto itself, its K + 2 knots
//                  evenly spaced (rounded down to samples), the speeds between them uniform in
//                  1 -+ strength before they are scaled to end at T - 1; x(w(s)) is linear
//                  between the two nearest samples
//           shift, crop   v(t) = x(w(first + t)), first = start - shift, start uniform in
//                  0 .. T - S, shift uniform in -m .. m; 0 where first + t is not in the record
//           scale  v(t) a_l, a_l = gain * lead_gain_l * sign; gains log-uniform, sign -1 by chance
//           sines  + b sin(2 pi (f t + p)) for the mains, and for the wander, never beyond c,
//                  + c / n sum_k sin(2 pi (f_k t + p_k))
//           noise  + z_l(t) sqrt(d^2 + (q e(t))^2), z white, normal and independent in each lead
//                  and sample; d is the SD of the noise, q that of EMG at the top of a burst;
//                  e is the largest sin^2(pi (t - s + 1/2) / m) of the bursts that hold t
//           masks  0 in all leads in some segments of y; 0 in all of a lead that is left out:
//                  of a subset drawn by size, leads drop out by chance; one is always kept
//           Draws are words of Philox4x32-10 with seed as key and counter (index, purpose * 2^24 +
//           lead, id, id / 2^32); draw.h says which purpose, index and word. Sample t has index
//           16 (t / 64) + t % 16 and is normal (t % 64) / 16 of that block's four: 0 and 1 are the
//           cosine and sine parts of words 0 and 1, 2 and 3 those of words 2 and 3
// Shapes    x, y last axis dense, N and L of any stride; record_ids (N,) i64, seed (1,) i64;
//           plan (N, P) f64 dense, the record's draws, its columns in plan.h; scratch (W, B) u8,
//           a row a worker, used on the CPU alone
// Units     x, y in mV, positions in samples (of the plan's knots in 2^-16 of one), frequencies in
//           turns a sample, phases in turns
// Cost      O(N L S): with noise a sample takes 5 multiplications of Philox, half a logarithm, half
//           a square root and half a sine with cosine; without, 2 to 4 flops. Sines, envelope and
//           positions are made once for all leads
// Traffic   least: x once, y once; plan and scratch stay in cache
// Numbers   draws of a record in f64, of samples in f32; positions and phases in integers, so that
//           every device reads the same samples (a frequency is rounded to 2^-32 turns a sample);
//           the rest in f32, in f64 for f64. The same bits for any batch and thread count;
//           instruction sets and devices differ by rounding
// Edges     N = 0 or L = 0 is a no-op; a NaN stays at its place, and between samples under a warp
//           that looks at it; masks put 0 over it; S <= T; L < 2^24, T < 2^31
// Mirrors   augment_reference in ecgfast/ops/_augment.py, on the draws of ops/_philox.py
#pragma once

#include "core/isa.h"

namespace ecgfast::augment {

constexpr int kMaxSizes = 16;

// What ecgfast.ops.augment.AugmentSpec says, in samples; members in the order of its words().
struct Spec {
  double warp;
  double knots;
  double shift;
  double gain[2];
  double lead_gain[2];
  double flip;
  double wander[2];
  double wander_turns[2];  // a sample
  double sines;
  double mains[2];
  double mains_turns;  // a sample
  double noise[2];
  double emg[2];
  double bursts[2];
  double burst[2];
  double masks[2];
  double mask[2];
  double dropout;
  double subset;
  double sizes;
  double size[kMaxSizes];
  double size_until[kMaxSizes];  // probabilities, summed up
};

// Items are records.
struct Draw {
  View seed, record_ids, plan;
  Spec spec;
  std::int64_t leads, samples, length;
};

// Items are records.
struct Apply {
  View x, y, seed, record_ids, plan, scratch;
  Spec spec;
};

ECGFAST_DECLARE(draw, Draw)
ECGFAST_DECLARE(apply, Apply)

}  // namespace ecgfast::augment
