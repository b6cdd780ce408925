// triplet_loss: hinge on squared Euclidean distances of embeddings, from index triplets.
//
// Math      x (N, D); triplet k names rows a, p, n of x; m is the margin; v_k in {0, 1} is valid
//             h_k = v_k max(0, |x_a - x_p|^2 - |x_a - x_n|^2 + m)
//             loss = share sum h,  share = 1 / max(1, sum v) for the mean, 1 for the sum
//           backward, g_k = dLoss/dh_k, over the active triplets, those with h_k > 0 or NaN:
//             dx_a += 2 g_k (x_n - x_p)    dx_p -= 2 g_k (x_a - x_p)    dx_n += 2 g_k (x_a - x_n)
// Shapes    x (N, D), last axis dense; anchors, positives, negatives (K,) i64 and valid (K,) u8 or
//           without memory (all are valid), of any stride; h (K,); loss, share, outside ();
//           owners (3, K) i32, kept for backward: the row of x that anchor, positive and negative k
//           give their gradient to, N or more if to none; backward takes owners as (3K,) in
//           ascending order, stably sorted by the caller, in slots (3K,) i64 where each stood, and
//           grad (K,), which is g / share, of any stride, 0 being one for all
// Units     x without unit; the loss, m and h in those of x squared
// Cost      forward 6 flops per triplet and dimension, backward 9 if active; the sort O(K). A row
//           of x is one item of backward, however many triplets share it
// Traffic   forward gathers 3 rows a triplet; backward 4 an active triplet (2 for its anchor, 1 for
//           its positive, 1 for its negative), besides its own row an owner; x N D written once.
//           Least: x once forward; x and dx once backward, when x stays in cache; 12 bytes of
//           owners a triplet. Nothing of size K x D or N x N exists
// Numbers   differences first, then squares: near rows do not cancel; p == n gives h = m exactly;
//           distances in f32 for f16, bf16, f32 and in f64 for f64, the sum over triplets in f64;
//           a row sums its parts in the order of slots (CUDA: four interleaved orders, then those),
//           so that neither threads nor runs show; no atomics
// Edges     K = 0 or nothing valid gives 0 and dx = 0; a NaN shows in h of the triplets that use
//           it, in no other; indices of an invalid triplet are not looked at; a valid triplet with
//           an index outside [0, N) reads no row, gives h = NaN and is counted in outside; N and
//           3 K under 2^31 - 3
// Mirrors   triplet_loss_reference in ecgfast/ops/triplet_loss.py
#pragma once

#include "core/isa.h"

namespace ecgfast::triplet_loss {

// Values of owners from N on: who gives no gradient, and why.
constexpr int kInactive = 0;  // N + 0: the hinge is zero
constexpr int kInvalid = 1;   // N + 1: not valid, not counted in the mean
constexpr int kOutside = 2;   // N + 2: an index outside [0, N)

// Items are triplets.
struct Forward {
  View x, anchors, positives, negatives, valid, hinge, owners;
  double margin;
};

// One item: the loss of all triplets.
struct Finish {
  View hinge, owners, loss, share, outside;
  std::int64_t rows;  // N
  bool mean;
};

// Items are rows of x.
struct Backward {
  View x, anchors, positives, negatives, owners, slots, grad, share, grad_x;
};

ECGFAST_DECLARE(forward, Forward)
ECGFAST_DECLARE(finish, Finish)
ECGFAST_DECLARE(backward, Backward)

}  // namespace ecgfast::triplet_loss
