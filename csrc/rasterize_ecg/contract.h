// rasterize_ecg: records drawn as pages of ECG paper, every pixel by the share that is covered.
//
// Math      A page of record n is paper, a grid on it, ink on top; points are in pixels, (0, 0) the
//           upper left corner of the upper left pixel, whose centre is (1/2, 1/2), y downwards.
//           grid    g(i) is the share of [i, i + 1] that lines of width w cover, at origin + k
//                   pitch for all whole k; fine and coarse lines alike, in x and in y:
//                     a = g_x + g_y - g_x g_y     paper <- paper + a (line - paper)
//                   fine before coarse
//           strip   sample t of lead l is the point (x0 + dx t, y0 - dy x[n, l, t]), t in first ..
//                   first + count - 1; neighbours are joined, but for those of which one is not
//                   finite; nothing is drawn above top or below bottom
//           stroke  a segment (x1, y1) to (x2, y2)
//           ink     c = max over all segments s of round(255 clamp(r_s - d_s, 0, 1)) / 255, d the
//                   distance of the pixel's centre from the segment, r half its width and 1/2
//                     colour = paper + c (ink - paper)
// Shapes    x (N, L, T), last axis dense; looks (N, S) f64, strips (N, P, 10) f64, strokes
//           (N, M, 5) f64, groups (N, G, 6) f64, dense, columns in plan.h; strips of count 0 and
//           groups without strokes fill up; scratch (W, H' W') u8, a row a worker, on the CPU
//           alone; out (N, C, H', W'), C 1 or 3, dense
// Units     x in mV; colours 0 to 255; out u8, or floats from 0 to 1
// Cost      a segment touches about (|dx| + 2 r) (|dy| + 2 r) pixels, 15 flops and a root each; a
//           page of 12 leads and a rhythm strip at 500 Hz 0.5 million of them. A pixel of the grid
//           takes 4 flops a colour; on the CPU rows that no line lies across are copied
// Traffic   least: x once, out once. A page of 2200 x 1700 in colour is 11 MB, 100 times its record
// Numbers   points and grid in f64, then f32 from the tile's corner; c in 255ths, so that a maximum
//           of whole numbers needs no order: the same bits for any batch and thread count. CPU,
//           CUDA and the reference may differ by a level where a number falls between two
// Edges     N = 0 is a no-op; a sample that is not finite, or a point that is farther than 2^22
//           pixels from the page, ends a line there; points on end make none; a lead of -1 is
//           blank; a page whose look has no grid has pitch 0
// Mirrors   rasterize_ecg_reference in ecgfast/ops/rasterize_ecg.py
#pragma once

#include "core/isa.h"

namespace ecgfast::rasterize_ecg {

// Items are pages.
struct Draw {
  View x, looks, strips, strokes, groups, scratch, out;
};

ECGFAST_DECLARE(draw, Draw)

}  // namespace ecgfast::rasterize_ecg
