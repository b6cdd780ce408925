// image_augment: pages as a scanner or a camera brings them, all faults in one pass.
//
// Math      Levels run from 0 to 255; each step that is on brings them back into that range. A
//           plan holds what was drawn for a record. Points are in pixels, (0, 0) the upper left
//           corner of the upper left pixel, y downwards. In this order:
//           geometry  (u w, v w, w) = M (x, y, 1), page from output; a pixel is the mean of K x K
//                     bilinear samples spread evenly over it; beyond the page lies `fill`
//           blur      sum over |k| <= r of weight[|k|] times the neighbour at k, along x, then
//                     along y; beyond the output lies its outermost pixel
//           light     times 1 - a s^2, s = g0 + gx x + gy y at the pixel's centre
//           folds     each times 1 - d b(t), t = c + nx x + ny y half widths from the fold,
//                       b(t) = 81/128 (1 - t^2)^2 (1 + 3 t) for |t| < 1, else 0; most is b(1/3) = 1
//           tone      of each colour v <- factor v + added, then 255 (v / 255)^gamma
//           noise     v + sd z, z normal; pixel (x, y) of colour c takes number (x % 32) / 8 of
//                     the counter (8 ceil(W' / 32) y + 8 (x / 32) + x % 8, 16 << 24 | c, record id)
//           loss      of blocks of 8 x 8, from the upper left corner, the last ones filled up with
//                     their outermost pixels: T X T' / 8 to the nearest multiple of its step, and
//                     back; T_0i = 1, T_ki = sqrt(2) cos((2 i + 1) k pi / 16). Of one colour X is
//                     v - 128, of three Y - 128, Cb and Cr of JFIF, these with steps of their own
//           at last   y_c = v scale_c / 255 + shift_c, or the nearest byte
// Shapes    pages (N, C, H, W) of any strides, C 1 or 3; plan (N, 180) f64 dense, columns in
//           plan.h; scratch (workers, bytes) u8, on the CPU alone; out (N, C, H', W') dense
// Units     pages 0 to 255 if u8, else 0 to 1; out likewise, before scale and shift
// Cost      a pixel and colour, in flops: geometry 6 K^2, and 20 K^2 for all colours; blur 6 r;
//           light and folds 10 each for all colours; noise 60; gamma 30; loss 35; a step that is
//           off in a record costs nothing there
// Traffic   least: what of the pages shows once, out once; a tile of all colours stays in cache
//           from the first step to the last: 64 x 64 pixels on the CPU, 32 x 32 on CUDA, up to 6
//           more on each side while there is blur
// Numbers   f32; places from f64 at the corner of a tile on, so that they do not show how large a
//           page is; greys go through Y, Cb, Cr exactly. CPU and CUDA differ by rounding, and by a
//           step where a coefficient falls in the middle between two. A record's bits depend on
//           itself, its plan, and the instruction set
// Edges     N = 0 is a no-op; pages of floats are brought into 0 to 1; a NaN is `fill`; K = 0
//           reads pixels as they are and needs H' = H, W' = W; a record of which no step is on is
//           copied, to the bit where in and out are of one dtype
// Mirrors   image_augment_reference in ecgfast/ops/_image_augment.py
#pragma once

#include "core/isa.h"

namespace ecgfast::image_augment {

// Items are tiles of kSide x kSide pixels of the output, record by record.
struct Apply {
  View pages, plan, scratch, out;
  double fill[3], scale[3], shift[3];  // a number a colour
};

ECGFAST_DECLARE(apply, Apply)

}  // namespace ecgfast::image_augment
