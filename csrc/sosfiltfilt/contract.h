// sosfiltfilt: second-order sections forward and back without a shift, and sosfilt, forward alone.
//
// Math      x (N, L, T); a row is one lead of one record. A cascade of K sections
//             H(z) = prod_k (b0 + b1 z^-1 + b2 z^-2) / (1 + a1 z^-1 + a2 z^-2)
//           F v is v through the cascade from zero states, Z v from those that an endless v[0] has
//           left behind. E adds `edge` samples at both ends, R turns time round, S takes E's off:
//             sosfiltfilt   y = S R Z R Z E x
//             sosfilt       y, zf = F x from states zi
//           backward, g = dLoss/dy:
//             sosfiltfilt   dx = E' Z' R Z' R S' g,  Z' w = R F R w, and at its start the sum of
//                           all that R F R w would still give before it, a sum over final states
//             sosfilt       dx, dzi = the transposed cascade back in time over g, from dzf
// Shapes    x, y, g, dx (N, L, T), last axis dense, y and dx wholly; zi, zf (N, L, K, 2) dense;
//           gaps (N, L) int32: how many samples of a row were NaN or infinite
// Units     y in that of x; states in scipy's scale
// Cost      CPU: 6 vector instructions on multiply-add pipes and 2 additions a section, direction
//           and 2 vectors of double (b0 and b2 being 1, which most designs have; else 8 or 10);
//           CUDA: about 10 multiply-adds a sample, section and direction
// Traffic   least: x once, y once. CPU: rows side by side in scratch that stays in L2; rows of more
//           than that go through y once more. CUDA: a tile of 5120 samples stays in registers and
//           shared memory; longer rows go through scratch once more
// Numbers   CPU: arithmetic and states in f64, float scratch between the directions for f32: about
//           1e-7 of the peak. CUDA: sections in modal form over 40 samples a thread, joined by a
//           scan, f32 for f32 and halves, or f64 where the poles ask for it (needs_double); f64
//           for f64. Subnormal numbers are zeros on the CPU
// Edges     T > edge; N = 0 is a no-op; a row with gaps is filled as on_gap says, else it becomes
//           NaN; other rows do not notice. Poles are inside the unit circle
// Mirrors   sosfiltfilt_reference, sosfilt_reference in ecgfast/ops/sosfiltfilt.py
#pragma once

#include "core/biquad.h"
#include "core/gaps.h"
#include "core/isa.h"

namespace ecgfast::sosfiltfilt {

// Scratch is of x's accumulator type. CPU: (threads, moments, 16), moments - 2 * edge being as many
// samples as are side by side at a time: T, or less and at least 2 * edge + 2. CUDA: (rows, T + 2 *
// edge, 1), or (rows, 0, 1) if that is at most kTile.
struct Forward {
  View x, y, gaps, scratch;
  Sections sections;
  Pad pad;
  std::int64_t edge;
  OnGap on_gap;
};

struct Backward {
  View grad_y, grad_x, scratch;
  Sections sections;
  Pad pad;
  std::int64_t edge;
};

// CPU scratch: (threads, moments, 16) with any moments > 0. CUDA: none.
struct Causal {
  View x, zi, y, zf, scratch;
  Sections sections;
};

struct CausalBackward {
  View grad_y, grad_zf, grad_x, grad_zi, scratch;
  Sections sections;
};

ECGFAST_DECLARE(forward, Forward)
ECGFAST_DECLARE(backward, Backward)
ECGFAST_DECLARE(causal, Causal)
ECGFAST_DECLARE(causal_backward, CausalBackward)

}  // namespace ecgfast::sosfiltfilt
