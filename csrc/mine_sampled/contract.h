// mine_sampled: positives and negatives of every anchor, drawn at random.
//
// Math      Anchor i has the positives P_i and negatives N_i that core/relation.h says, never
//           itself and nobody whose embedding is not finite. p_ij are products of rows.
//           weighted (Wu, Manmatha, Smola, Krahenbuhl, ICCV 2017), rows of unit length, c = p_ij:
//             d = sqrt(2 - 2c); on the sphere in D dimensions the density of d is proportional to
//             q(d) = d^(D-2) (1 - d^2 / 4)^((D-3)/2); a negative is drawn by 1 / q(max(d, cutoff))
//             log2 1/q = (3-D)/2 log2(1 - c^2) - 1/2 log2(1 - c) + const,
//             legal L_i = {j in N_i: c > least},  c no more than most
//             anchors without legal negative: none, uniform in N_i, or the nearest of N_i
//           uniform, d_ij^2 = max(0, |x_i|^2 + |y_j|^2 - 2 p_ij):
//             random      j uniform in P_i, k uniform in N_i
//             semi_hard   j as above; k uniform in {k in N_i: d_ij < d_ik < d_ij + margin}
//             soft_hard   j uniform in {j in P_i: d_ij > min over N_i}, k uniform in
//                         {k in N_i: d_ik < max over P_i}
//             an empty set gives way to all of P_i or N_i
//           Draws are Philox, counter (row, sample, purpose, 0), key the seed: no strip, thread,
//           device nor number of samples shows. weighted: word 0 chooses a chunk of 64 columns by
//           the chunks' sums, word 1 a column in it, both by inverse CDF of u = (24 bits + 1/2)
//           2^-24; where none is legal, word 2 chooses among N_i; uniform: words 0 and 1 choose
//           j and k
// Shapes    a strip (R, M) of products, last axis dense; row_* (R,), column_* (M,), dense: i32
//           numbers, -1 for nobody; places (R,) i64, the column that is the row itself, or -1;
//           seed (1,) i64; positives, negatives (R, S) i64, valid (R, S) u8, dense
// Units     distances in those of the embeddings
// Cost      weighted: 2 log2 and 1 exp2 a pair, whatever S; a chunk again for every sample
//           uniform: 2 to 4 passes over a row, and 2 for every sample
// Traffic   least: the strip once; uniform with distances reads it 2 to 4 times, from the cache
// Numbers   the maximum that is taken off a log weight is that of its chunk's legal columns, so
//           that nothing underflows at any D; sums of a chunk in the strip's dtype, all others in
//           f64, in the order of columns. CPU and CUDA differ by the rounding of weights alone
// Edges     M = 0 or nobody to draw: not valid, index `places`, or 0 where that is -1; a NaN
//           product is not legal; N = 0 is a no-op; R and M under 2^31
// Mirrors   distance_weighted_reference, semi_hard_reference, soft_hard_reference and
//           random_triplets_reference in ecgfast/ops/_mine_sampled.py: distributions
#pragma once

#include "core/isa.h"
#include "core/relation.h"

namespace ecgfast::mine_sampled {

constexpr int kChunk = 64;  // columns; part of what fixes the draws

// What to do where no negative is legal.
constexpr int kDrop = 0;
constexpr int kUniform = 1;
constexpr int kHardest = 2;

// Who of the positives and negatives is drawn.
constexpr int kRandom = 0;
constexpr int kSemiHard = 1;
constexpr int kSoftHard = 2;

// Items are rows of the strip.
struct Weighted {
  View strip;
  Identity row, column;
  View places, seed;
  View chunks;  // scratch (R, 2, M / 64) f64: maxima of the chunks' log weights, and sums
  View negatives, valid;
  std::int64_t first;  // number of the strip's first row
  double power;        // (3 - D) / 2
  double least, most;
  int policy;
};

// Items are rows of the strip, which random does without.
struct Uniform {
  View strip, row_squares, column_squares;
  Identity row, column;
  View places, seed;
  View positives, negatives, valid;
  std::int64_t first;
  double margin;
  int rule;
  bool squared;  // the margin is one of squared distances
};

ECGFAST_DECLARE(weighted, Weighted)
ECGFAST_DECLARE(uniform, Uniform)

}  // namespace ecgfast::mine_sampled
