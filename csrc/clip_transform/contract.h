// clip_transform: views of clips, from bytes to what a network takes, in one pass.
//
// Math      A plan holds what was drawn for a clip; all its frames and channels get the same. Of
//           each frame, (0, 0) the centre of the upper left pixel, y downwards, in this order:
//           order     shown frame g is frame plan[kFrames + g]
//           window    pixel (x, y) is (x + left, y + top) of the frame, 0 beyond it
//           flip      pixel (x, y) is (W - 1 - x, y)
//           turn      pixel (x, y) is what lies at (u, v) = (u0 + ux x + uy y, v0 + vx x + vy y)
//                     between four pixels, to the nearest whole number, the upper one of two; 0
//                     unless 0 <= u <= W - 1 and 0 <= v <= H - 1
//           scale     of a level v, over all that is shown of a clip: none v; unit v / 255; min_max
//                     (v - min) / (max - min); standard (v - mean) / SD, of the population; 0 of a
//                     clip of one level in the last two
//           at last   y_c = (v - mean_c) / std_c
// Shapes    clips (N, C, F, H, W) u8, dense along W, C 1 or 3; plan (N, 10 + G) i64 dense, columns
//           in plan.h; scratch (workers, bytes) u8, on the CPU alone; out (N, C, G, H, W), dense in
//           C order or with channels last
// Units     levels 0 to 255
// Cost      a pixel: 11 integer operations if turned, 1 to find min and max, 3 to scale; where a
//           pixel comes from is found once for all frames and channels
// Traffic   least: clips once, out once; in between a clip stays in cache, as bytes. CUDA reads
//           clips twice where they are scaled by what they hold
// Numbers   places in units of 2^-32 pixel, shares between pixels of 2^-15, levels on the way of
//           2^-7: integers up to the levels, so that these are the same on all machines, within
//           0.53 of the exact value between four pixels; sums are integers; the rest is f32, mean
//           and SD from f64. Halves are rounded once
// Edges     N = 0 is a no-op; a side of 1 pixel; a frame may be shown more than once, or never
// Mirrors   clip_transform_reference in ecgfast/ops/_clip_transform.py
#pragma once

#include "core/isa.h"

namespace ecgfast::clip_transform {

enum class How : int { none = 0, unit = 1, min_max = 2, standard = 3 };

// Items are clips. Halves are written as their bits: `out` is then i16 and `kept` what they are.
struct Transform {
  View clips, plan, scratch, out;
  DType kept;
  How how;
  double mean[3], std[3];  // of each channel
};

ECGFAST_DECLARE(transform, Transform)

}  // namespace ecgfast::clip_transform
